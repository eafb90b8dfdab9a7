"""From a ComputeProvider and its Secret to an adapter, against the real API server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from cal_adapters import connect as connecting
from cal_adapters.contract import Credentials
from cal_adapters.errors import CredentialsRefused
from cal_adapters.fake import DemoAdapter, ledger_path
from cal_adapters.registry import UnknownAdapter
from cal_crds.cluster import Cluster, NotFound
from cal_crds.meta import API_VERSION, PROVIDER
from cal_crds.names import digest
from cal_crds.provider import ComputeProvider
from cal_relay.adapters import Adapters
from cal_relay.settings import Settings

pytestmark = pytest.mark.anyio


def _provider(*credentials: tuple[str, str], default: str | None = None, adapter: str = "demo") -> ComputeProvider:
    listed = [{"name": name, "secretRef": {"name": secret}} for name, secret in credentials]
    spec = {"adapter": adapter, "credentials": listed, "defaultCredential": default}
    return ComputeProvider.model_validate({"metadata": {"name": "p"}, "spec": spec})


async def _secret(cluster: Cluster, namespace: str, name: str, **data: bytes) -> None:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    await cluster.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": name}, "data": encoded})


async def test_the_credential_that_is_named_else_the_default_else_the_first(cluster: Cluster, namespace: str) -> None:
    await _secret(cluster, namespace, "one", apiKey=b"first")
    await _secret(cluster, namespace, "two", apiKey=b"second\n")
    listed = (("a", "one"), ("b", "two"))

    async def read(provider: ComputeProvider, name: str | None) -> Credentials | None:
        return await connecting.read_credentials(cluster, provider, name, namespace)

    assert await read(_provider(*listed), None) == Credentials("a", {"apiKey": "first"})
    assert await read(_provider(*listed), "b") == Credentials("b", {"apiKey": "second"})
    assert await read(_provider(*listed, default="b"), None) == Credentials("b", {"apiKey": "second"})
    assert await read(_provider(), None) is None


async def test_what_is_wrong_with_a_credential_is_said_without_its_value(cluster: Cluster, namespace: str) -> None:
    await _secret(cluster, namespace, "binary", apiKey=b"hunter2\xff")
    await _secret(cluster, namespace, "empty")
    where = f"Secret {namespace}"
    wrong = {
        "provider 'p' has no credential 'c'; it has ['a']": (_provider(("a", "none")), "c"),
        "provider 'p' has no credential 'c'; it has []": (_provider(), "c"),
        f"{where}/none of credential 'a' doesn't exist": (_provider(("a", "none")), None),
        f"{where}/empty of credential 'a' is empty": (_provider(("a", "empty")), None),
        f"key 'apiKey' of {where}/binary of credential 'a' is not UTF-8 text: UnicodeDecodeError": (
            _provider(("a", "binary")),
            None,
        ),
    }
    for said, (provider, name) in wrong.items():
        with pytest.raises(CredentialsRefused) as refused:
            await connecting.read_credentials(cluster, provider, name, namespace)
        assert str(refused.value) == said
        assert refused.value.__cause__ is None or "hunter2" not in repr(refused.value.__cause__)


async def test_the_adapter_gets_what_it_needs(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    adapter = await _connect(cluster, _provider(), namespace, tmp_path, ["demo"])
    assert isinstance(adapter, DemoAdapter)
    assert _exists(ledger_path(tmp_path, "p"))
    await adapter.close()


def _exists(path: Path) -> bool:
    return path.exists()


async def test_an_adapter_that_is_not_enabled_is_unknown(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    for adapter in ("demo", "local", "nowhere"):
        with pytest.raises(UnknownAdapter, match=f"No adapter '{adapter}' here"):
            await _connect(cluster, _provider(adapter=adapter), namespace, tmp_path, [])


async def _connect(cluster: Cluster, provider: ComputeProvider, namespace: str, state: Path, enabled: Any) -> Any:
    return await connecting.connect(
        cluster,
        provider,
        None,
        installation="0a1b2c3d4e",
        enabled=enabled,
        state_dir=state,
        kubeconfig=None,
        system_namespace=namespace,
    )


async def test_the_installation_is_that_of_the_cluster_and_namespace(cluster: Cluster) -> None:
    uid = (await cluster.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"]
    assert await connecting.find_installation(cluster, "cal-system") == digest(uid, "cal-system")


async def test_adapters_are_kept_until_what_they_are_made_from_changes(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    name = f"kept-{namespace}"
    await _secret(cluster, namespace, "key", apiKey=b"one")
    spec = {"adapter": "demo", "credentials": [{"name": "a", "secretRef": {"name": "key"}}]}
    body = {"apiVersion": API_VERSION, "kind": "ComputeProvider", "metadata": {"name": name}, "spec": spec}
    await cluster.create(PROVIDER.path(), body)
    settings = Settings(enabled=frozenset({"demo"}), state_dir=tmp_path, system_namespace=namespace)
    adapters = Adapters(cluster, settings)
    async with adapters.lend(name, None) as first, adapters.lend(name, None) as again:
        assert first is again
    await _refuse(adapters, name)
    async with adapters.lend(name, None) as same:
        assert same is first, "nothing has changed"
        await cluster.merge_patch(f"/api/v1/namespaces/{namespace}/secrets/key", {"stringData": {"apiKey": "two"}})
        await _refuse(adapters, name)
        async with adapters.lend(name, None) as fresh:
            assert fresh is not first
        assert await same.offers(), "an adapter that is lent stays open"
    await adapters.close()
    with pytest.raises(NotFound):
        async with adapters.lend("nowhere", None):
            pass


async def _refuse(adapters: Adapters, name: str) -> None:
    """The provider turns the credentials away, so they are looked at again at once."""
    with pytest.raises(CredentialsRefused):
        async with adapters.lend(name, None):
            raise CredentialsRefused("expired")
