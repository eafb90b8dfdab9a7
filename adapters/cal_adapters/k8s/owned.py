"""What the Pod of an instance owns: its Secrets and its Service, as dicts; and the patch that lets the Pod go, once they exist."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from cal_adapters.contract import LaunchRequest, RegistryLogin
from cal_adapters.k8s.manifests import distinct, labels, pull_secret_name
from cal_adapters.k8s.translate import ANNOTATION_ENDPOINT, GATE
from cal_crds.cluster import Body
from cal_crds.meta import LABEL_INSTALLATION, LABEL_TOKEN
from cal_crds.workload import PortProtocol

_SCHEMES: Final = {PortProtocol.HTTP: "http", PortProtocol.WEBSOCKET: "ws", PortProtocol.TCP: "tcp"}


def secrets(request: LaunchRequest, owner: Body, provider: str) -> list[Body]:
    """The Secrets of the instance: its environment, and the logins of its registries. None that would be empty."""
    found: list[Body] = []
    if request.env:
        data = {value.name: _base64(value.value) for value in request.env}
        found.append(_owned("Secret", str(request.mark), request, owner, provider) | {"type": "Opaque", "data": data})
    if request.logins:
        data = {".dockerconfigjson": _base64(_docker_config(request.logins))}
        head = _owned("Secret", pull_secret_name(request), request, owner, provider)
        found.append(head | {"type": "kubernetes.io/dockerconfigjson", "data": data})
    return found


def service(request: LaunchRequest, owner: Body, provider: str) -> Body | None:
    """The Service with the workload's ports; None for a workload without."""
    ports = distinct(request.workload.ports)
    if not ports:
        return None
    selector = {LABEL_INSTALLATION: request.mark.installation, LABEL_TOKEN: request.mark.token}
    listed = [{"name": port.name, "port": port.port, "targetPort": port.port} for port in ports]
    head = _owned("Service", str(request.mark), request, owner, provider)
    return head | {"spec": {"type": "ClusterIP", "selector": selector, "ports": listed}}


def endpoint(request: LaunchRequest, made: Body, *, inside: bool) -> str:
    """The URL of the first port: by its DNS name where we run in that cluster, else by the Service's address."""
    port, address = request.workload.ports[0], made["spec"].get("clusterIP") or ""
    host = f"[{address}]" if ":" in address else address
    if inside or not address or address == "None":
        host = f"{made['metadata']['name']}.{made['metadata']['namespace']}.svc"
    return f"{_SCHEMES[port.protocol]}://{host}:{port.port}"


def open_gate(endpoint_url: str | None) -> Body:
    """The strategic merge patch that lets the scheduler have the Pod. Gates of others stay."""
    patch: Body = {"spec": {"schedulingGates": [{"$patch": "delete", "name": GATE}]}}
    if endpoint_url:
        patch["metadata"] = {"annotations": {ANNOTATION_ENDPOINT: endpoint_url}}
    return patch


def _owned(kind: str, name: str, request: LaunchRequest, owner: Body, provider: str) -> Body:
    """The head of an object that goes with its Pod wherever garbage is collected; elsewhere `stop` deletes it."""
    reference = {"apiVersion": "v1", "kind": "Pod", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": labels(request, provider),
            "ownerReferences": [reference],
        },
    }


def _docker_config(logins: Sequence[RegistryLogin]) -> str:
    auths: dict[str, Any] = {}
    for login in logins:
        pair = f"{login.username}:{login.password}"
        auths[login.server] = {"username": login.username, "password": login.password, "auth": _base64(pair)}
    return json.dumps({"auths": auths})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
