"""The comparison of the store with the API server, on one that holds nothing at all: no kind may keep the others from being compared."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.desk import until

from cal_cli.controlplane import ControlPlane, Options, start
from cal_crds.cluster import Cluster, Unavailable
from cal_crds.meta import API_VERSION, PROVIDER
from cal_operator import resync
from cal_operator.__main__ import build
from cal_operator.engine import Engine
from cal_operator.settings import parse
from cal_operator.world import World

pytestmark = pytest.mark.anyio
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def empty_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    directory = Path(tempfile.mkdtemp(prefix="cal-test-"))
    plane = start(directory, binaries, Options(fsync=False))
    try:
        kubectl = [str(binaries["kubectl"]), f"--kubeconfig={plane.kubeconfig}"]
        subprocess.run([*kubectl, "apply", "--server-side", "-f", str(REPO / "crds")], check=True, capture_output=True)
        subprocess.run([*kubectl, "create", "namespace", "cal-system"], check=True, capture_output=True)
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def _serves(world: World) -> bool:
    try:
        await resync.load(world)
    except Unavailable:
        return False  # the storage of a kind that was just defined
    return True


async def test_an_object_that_went_unseen_is_forgotten_where_every_kind_is_empty(empty_plane: ControlPlane) -> None:
    """The API server says null, not an empty list, for the metadata of nothing."""
    async with await Cluster.connect(str(empty_plane.kubeconfig)) as cluster:
        world = await build(cluster, cluster, parse([f"--kubeconfig={empty_plane.kubeconfig}"]))
        Engine(world)
        body = {"apiVersion": API_VERSION, "kind": PROVIDER.name, "metadata": {"name": "p"}, "spec": {"adapter": "k8s"}}
        await until(lambda: _serves(world), what="storage of all kinds")
        made = await cluster.create(PROVIDER.path(), body)
        world.learn(PROVIDER, made)
        await cluster.delete(PROVIDER.path(name="p"))
        await resync.compare(world)
        assert world.store.providers.uids() == []
