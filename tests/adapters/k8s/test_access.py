"""By whose rights the adapter acts: kubeconfigs that it takes and refuses, and service accounts that lack a right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cal_adapters.contract import Stop
from cal_adapters.errors import CredentialsRefused, InstanceNotFound, NotSent, Refused
from cal_adapters.k8s.rights import RULES
from cal_adapters.registry import load

pytestmark = pytest.mark.anyio

SEES = [
    {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
]
ENOUGH = list(RULES)


async def first_offer(adapter: Any, site: Any, eventually_async: Callable[..., Any]) -> Any:
    async def offered() -> Any:
        return [offer for offer in await adapter.offers() if offer.region == site.region]

    return (await eventually_async(offered))[0]


async def test_the_documented_rights_are_enough(
    site: Any, adapters: Any, limited: Any, request_for: Any, eventually_async: Callable[..., Any]
) -> None:
    site.node()
    adapter = adapters(secret={"kubeconfig": limited(ENOUGH)})
    assert (await adapter.check()).id
    bought = await adapter.launch(request_for(await first_offer(adapter, site, eventually_async)))
    assert await adapter.find(bought.mark) == [bought]
    assert (await adapter.observe(bought.handle)).state

    async def gone() -> bool:
        return await adapter.stop(bought.handle) is Stop.GONE

    await eventually_async(gone)


async def test_no_rights_at_all_say_so_everywhere(site: Any, adapters: Any, limited: Any) -> None:
    adapter = adapters(secret={"kubeconfig": limited([])})
    for call in (adapter.check, adapter.offers, adapter.list_marked):
        with pytest.raises(CredentialsRefused, match=r"cannot (list|get) resource"):
            await call()


async def test_without_the_right_to_create_pods_nothing_is_bought(
    site: Any, adapters: Any, limited: Any, request_for: Any, eventually_async: Callable[..., Any]
) -> None:
    site.node()
    adapter = adapters(secret={"kubeconfig": limited(SEES)})
    offer = await first_offer(adapter, site, eventually_async)
    with pytest.raises(CredentialsRefused, match='cannot create resource "pods"'):
        await adapter.launch(request_for(offer))


@pytest.mark.parametrize("missing", ["secrets", "services"])
async def test_a_launch_that_is_refused_half_way_takes_its_pod_back(
    site: Any, adapters: Any, limited: Any, request_for: Any, eventually_async: Callable[..., Any], missing: str
) -> None:
    site.node()
    rules = [{**rule, "resources": [r for r in rule["resources"] if r != missing]} for rule in ENOUGH]
    adapter = adapters(secret={"kubeconfig": limited(rules)})
    offer = await first_offer(adapter, site, eventually_async)
    with pytest.raises(CredentialsRefused, match=f'resource "{missing}"'):
        await adapter.launch(request_for(offer))
    assert site.names("pods") == []


async def test_a_token_that_nobody_issued(site: Any, adapters: Any, with_token: Any) -> None:
    adapter = adapters(secret={"kubeconfig": with_token(site.kubeconfig, "not-a-token")})
    with pytest.raises(CredentialsRefused):
        await adapter.check()
    with pytest.raises(CredentialsRefused):
        await adapter.observe("c/n/p/u")


async def test_not_found_needs_credentials_that_work(site: Any, adapters: Any, adapter: Any, limited: Any) -> None:
    """One that may read Pods but not tell which cluster this is can't prove that a Pod is gone."""
    cluster = (await adapter.check()).id
    handle = f"{cluster}/{site.namespace}/cal-x/no-such-uid"
    with pytest.raises(InstanceNotFound):
        await adapter.observe(handle)
    half = adapters(secret={"kubeconfig": limited([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])})
    for verb in (half.observe, half.stop):
        with pytest.raises(CredentialsRefused, match="namespaces"):
            await verb(handle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda user: user.update(exec={"command": "/bin/true", "apiVersion": "v1"}), "exec"),
        (lambda user: user.update(tokenFile="/etc/hostname"), "tokenFile"),
        (lambda user: user.update({"client-key": "/etc/hostname"}), "client-key"),
        (lambda user: user.update({"auth-provider": {"name": "gcp"}}), "auth-provider"),
    ],
)
async def test_a_secret_is_no_program_and_reads_no_files(
    site: Any, adapters: Any, limited: Any, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    document = yaml.safe_load(limited(SEES))
    change(document["users"][0]["user"])
    with pytest.raises(CredentialsRefused, match=words):
        await adapters(secret={"kubeconfig": yaml.safe_dump(document)}).check()


@pytest.mark.parametrize("text", ["", "nonsense", "[1, 2]", "{unclosed: [", "apiVersion: v1\nkind: Config\n"])
async def test_a_kubeconfig_that_is_none(adapters: Any, text: str) -> None:
    with pytest.raises(CredentialsRefused, match="kubeconfig"):
        await adapters(secret={"kubeconfig": text}).check()


async def test_no_message_holds_the_token(site: Any, adapters: Any, with_token: Any) -> None:
    broken = with_token(site.kubeconfig, "tok-en-123456").replace(
        "certificate-authority-data: ", "certificate-authority-data: !"
    )
    adapter = adapters(secret={"kubeconfig": broken})
    with pytest.raises(CredentialsRefused) as caught:
        await adapter.check()
    assert "tok-en-123456" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_an_api_server_that_is_not_there(site: Any, adapters: Any, with_token: Any, free_port: int) -> None:
    document = yaml.safe_load(with_token(site.kubeconfig, "t"))
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port}"
    with pytest.raises(NotSent):
        await adapters(secret={"kubeconfig": yaml.safe_dump(document)}).check()


async def test_the_endpoint_of_the_provider_is_not_for_k8s(adapters: Any) -> None:
    with pytest.raises(Refused, match="kubeconfig"):
        await adapters(endpoint="https://somewhere.invalid").check()


async def test_outside_of_a_cluster_it_needs_a_kubeconfig(context: Any) -> None:
    adapter = load("k8s")(dataclasses.replace(context(), kubeconfig=None))
    with pytest.raises(CredentialsRefused, match="service account"):
        await adapter.check()
    await adapter.close()
