"""From a ComputeProvider and a credential's name to an adapter: the one way in which operator and relay make theirs.

The credential's Secret is read live from the operator's own namespace each time, never from a cache: `read_credentials` alone tells
cheaply whether it has changed since.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from pathlib import Path

from cal_adapters import registry
from cal_adapters.contract import Adapter, Context, Credentials
from cal_adapters.errors import CredentialsRefused
from cal_crds.cluster import Cluster, Forbidden, NotFound
from cal_crds.names import installation_id
from cal_crds.provider import ComputeProvider, Credential


async def find_installation(cluster: Cluster, system_namespace: str) -> str:
    """The id of this installation, out of the uid of kube-system and the operator's namespace. ClusterError if it can't be asked."""
    kube_system = await cluster.get("/api/v1/namespaces/kube-system")
    return installation_id(kube_system["metadata"]["uid"], system_namespace)


async def connect(
    cluster: Cluster,
    provider: ComputeProvider,
    credential: str | None,
    *,
    installation: str,
    enabled: Collection[str],
    state_dir: Path | None,
    kubeconfig: str | None,
    system_namespace: str,
) -> Adapter:
    """The adapter of a provider with one of its credentials (None: its default). The caller closes it.

    `enabled` names the adapters that load only on request. Raises registry.UnknownAdapter, CredentialsRefused (no such credential,
    or its Secret is missing or can't be read) and ClusterError (the API server can't be asked).
    """
    create = registry.load(provider.spec.adapter, enabled)
    return create(
        Context(
            provider=provider.metadata.name,
            settings=provider.spec,
            installation=installation,
            credentials=await read_credentials(cluster, provider, credential, system_namespace),
            state_dir=state_dir,
            kubeconfig=kubeconfig,
            system_namespace=system_namespace,
        )
    )


async def read_credentials(
    cluster: Cluster, provider: ComputeProvider, credential: str | None, system_namespace: str
) -> Credentials | None:
    """The decoded Secret of a named credential (None: the default one), or None where the provider has no credentials at all."""
    chosen = choose_credential(provider, credential)
    if chosen is None:
        return None
    where = f"Secret {system_namespace}/{chosen.secret_ref.name} of credential {chosen.name!r}"
    try:
        secret = await cluster.get(f"/api/v1/namespaces/{system_namespace}/secrets/{chosen.secret_ref.name}")
    except NotFound as error:
        raise CredentialsRefused(f"{where} doesn't exist") from error
    except Forbidden as error:
        raise CredentialsRefused(f"{where} may not be read: {error.message}") from error
    return Credentials(chosen.name, _decode(secret.get("data") or {}, where))


def choose_credential(provider: ComputeProvider, credential: str | None) -> Credential | None:
    """The credential of that name; for None the default one, else the first. None where the provider has none at all."""
    listed = provider.spec.credentials
    wanted = credential or provider.spec.default_credential
    if wanted is None:
        return listed[0] if listed else None
    for candidate in listed:
        if candidate.name == wanted:
            return candidate
    names = [candidate.name for candidate in listed]
    raise CredentialsRefused(f"provider {provider.metadata.name!r} has no credential {wanted!r}; it has {names}")


def _decode(data: Mapping[str, str], where: str) -> dict[str, str]:
    """A Secret's data as text. The trailing line end that `kubectl create secret --from-file` leaves is dropped."""
    if not data:
        raise CredentialsRefused(f"{where} is empty")
    decoded = {}
    for key, value in data.items():
        try:
            decoded[key] = base64.b64decode(value, validate=True).decode().rstrip("\r\n")
        except (binascii.Error, UnicodeDecodeError) as error:
            # The cause would quote the bytes.
            raise CredentialsRefused(f"key {key!r} of {where} is not UTF-8 text: {type(error).__name__}") from None
    return decoded
