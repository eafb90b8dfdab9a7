"""The comparison of the store with the API server, on one that holds nothing at all: no kind may keep the others from being compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.plane import operator_plane

from cal_cli.controlplane import ControlPlane
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, PROVIDER
from cal_operator import resync
from cal_operator.__main__ import build
from cal_operator.engine import Engine
from cal_operator.settings import parse

pytestmark = pytest.mark.anyio


@pytest.fixture
def empty_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    with operator_plane(binaries) as plane:
        yield plane


async def test_an_object_that_went_unseen_is_forgotten_where_every_kind_is_empty(empty_plane: ControlPlane) -> None:
    """The API server says null, not an empty list, for the metadata of nothing."""
    async with await Cluster.connect(str(empty_plane.kubeconfig)) as cluster:
        world = await build(cluster, cluster, parse([f"--kubeconfig={empty_plane.kubeconfig}"]))
        Engine(world)
        body = {"apiVersion": API_VERSION, "kind": PROVIDER.name, "metadata": {"name": "p"}, "spec": {"adapter": "k8s"}}
        made = await cluster.create(PROVIDER.path(), body)
        world.learn(PROVIDER, made)
        await cluster.delete(PROVIDER.path(name="p"))
        await resync.compare(world)
        assert world.store.providers.uids() == []
