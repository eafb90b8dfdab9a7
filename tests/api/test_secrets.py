"""What clients send in confidence: kept in a Secret of the deployment, shown nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from cal_crds.meta import DEPLOYMENT, LABEL_OWNER

Eventually = Callable[..., Any]


def test_secrets_go_to_a_secret_and_are_never_shown(world: Any) -> None:
    pool = world.pool()
    configuration = {
        "image": "a/b:c",
        "env": {"HF_TOKEN": "hf-hidden", "MODE": "fast", "DB_PASSWORD": "pw-hidden"},
        "api_key": "key-hidden",
        "extra": {"nested": [{"client_secret": "deep-hidden"}], "url": "https://u:url-hidden@h/x"},
    }
    uid = world.deployment(pool, configuration=configuration)
    stored = world.resource(DEPLOYMENT, uid)
    env = {var["name"]: var for var in stored["spec"]["workload"]["env"]}
    assert env["MODE"] == {"name": "MODE", "value": "fast"}
    name = env["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["name"]
    secret = world.call("get", f"/api/v1/namespaces/{world.namespace}/secrets/{name}")
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert values == {"HF_TOKEN": "hf-hidden", "DB_PASSWORD": "pw-hidden", "API_KEY": "key-hidden"}
    assert secret["metadata"]["labels"][LABEL_OWNER] == stored["metadata"]["labels"][LABEL_OWNER]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == uid
    shown = world.get(f"/status/{uid}").json()["configuration"]
    assert shown["env"] == {"HF_TOKEN": "***", "MODE": "fast", "DB_PASSWORD": "***", "API_KEY": "***"}
    assert shown["extra"] == {"nested": [{"client_secret": "***"}], "url": "https://***@h/x"}
    del secret["data"]
    assert "hidden" not in json.dumps([stored, shown, secret]) + world.get("/metrics").text


def test_no_secret_stands_in_an_error(world: Any) -> None:
    pool = world.pool()
    for configuration in (
        {"env": {"API_TOKEN": ["hidden"]}},
        {"env": ["API_TOKEN hidden"]},
        {"api_key": {"a": "hidden"}},
    ):
        reply = world.post("/deploy", {"pool_id": pool, "model_name": "m", "configuration": configuration})
        assert reply.status_code == 400 and "hidden" not in reply.text


def test_a_deployment_whose_secret_cannot_be_stored_is_taken_back(
    world: Any, kubectl: Callable[..., Any], namespace: str, eventually: Eventually
) -> None:
    """An admission rule that refuses our Secrets stands for whatever may go wrong between the two writes."""
    spec = {"owner": {"id": "kim"}, "providerRef": {"name": "nosana"}}
    pool = {"apiVersion": "calayer.dev/v1alpha1", "kind": "ComputePool", "metadata": {"name": "p"}, "spec": spec}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"secrets": "0"}}}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pool))
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(quota))
    status = {"status": {"hard": {"secrets": "0"}, "used": {"secrets": "0"}}}
    kubectl("patch", "quota", "q", "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    uid = kubectl("get", "cpool", "p", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout

    kept: list[str] = []

    def refused() -> bool:
        body = {"pool_id": uid, "model_name": "m", "configuration": {"engine": "vllm", "env": {"A_KEY": "hidden"}}}
        reply = world.post("/deploy", body)
        kept.extend([reply.json()["deployment_id"]] if reply.status_code == 200 else [])
        assert reply.status_code == 403 and "exceeded quota" in reply.json()["detail"], reply.text
        assert "hidden" not in reply.text
        return True

    # The quota's plugin has a cache of its own: the first ones may pass.
    eventually(refused)
    stored = [item["metadata"]["uid"] for item in world.call("list", DEPLOYMENT.path(namespace))["items"]]
    assert sorted(stored) == sorted(kept)
    assert world.get(f"/listDeployments/{uid}").json()["total"] == len(kept)
