"""Credentials are kept while they are needed: a Secret that nodes' instances must be stopped with keeps our finalizer (rule 4)."""

from __future__ import annotations

from cal_adapters.connect import choose_credential
from cal_crds.cluster import NotFound
from cal_crds.meta import FINALIZER
from cal_crds.provider import ComputeProvider
from cal_operator.world import World


async def hold(world: World, provider: ComputeProvider, credential: str | None, *, sure: bool = False) -> None:
    """Before a node is made: its credential's Secret stays until the node is gone. Costs nothing when it is held already, unless it must be
    `sure`: whoever replaces a Secret as a whole takes our finalizer away."""
    chosen = choose_credential(provider, credential)
    if chosen is not None and (sure or chosen.secret_ref.name not in world.held_secrets):
        await _set(world, chosen.secret_ref.name, held=True)
        world.held_secrets.add(chosen.secret_ref.name)


async def let_go(world: World, provider: ComputeProvider) -> None:
    """No node needs the provider's credentials any more."""
    for credential in provider.spec.credentials:
        name = credential.secret_ref.name
        if not _needed_elsewhere(world, provider, name):
            world.held_secrets.discard(name)
            await _set(world, name, held=False)


def _needed_elsewhere(world: World, provider: ComputeProvider, secret: str) -> bool:
    used = {fact.provider for fact in world.store.facts() if not fact.gone}
    return any(
        other.metadata.name in used
        and any(credential.secret_ref.name == secret for credential in other.spec.credentials)
        for other in world.store.providers.all()
        if other.metadata.uid != provider.metadata.uid
    )


async def _set(world: World, name: str, *, held: bool) -> None:
    path = f"/api/v1/namespaces/{world.settings.system_namespace}/secrets/{name}"
    try:
        metadata = (await world.cluster.get(path))["metadata"]
        others = [finalizer for finalizer in metadata.get("finalizers") or [] if finalizer != FINALIZER]
        wanted = [*others, FINALIZER] if held else others
        if wanted != (metadata.get("finalizers") or []):
            change = {"finalizers": wanted, "resourceVersion": metadata["resourceVersion"]}
            await world.cluster.merge_patch(path, {"metadata": change})
    except NotFound:
        return  # the account can't be opened without it, and says so
