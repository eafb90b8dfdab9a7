"""Writes whose answers are lost: a connection that is cut after the API server did what it was asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rig.cutter import Cutter

from cal_api.errors import NotFound
from cal_api.store import Store
from cal_api.writer import Exists, Writer
from cal_crds.cluster import Body, Cluster, Unavailable
from cal_crds.meta import POOL

pytestmark = pytest.mark.anyio


@pytest.fixture
def forwarded(kubeconfig: Path, tmp_path: Path, free_port: int) -> tuple[int, Path]:
    """(port of the real API server, a kubeconfig for it at the free port)."""
    text = kubeconfig.read_text()
    found = re.search(r"https://127\.0\.0\.1:(\d+)", text)
    assert found is not None
    config = tmp_path / "kubeconfig"
    config.write_text(text.replace(found[0], f"https://127.0.0.1:{free_port}"))
    return int(found[1]), config


@pytest.fixture
async def cut(forwarded: tuple[int, Path], free_port: int) -> AsyncIterator[tuple[Cutter, Cluster]]:
    """A forwarder, and the API server as seen through it."""
    cutter, running = Cutter(forwarded[0]), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(cutter.serve(reader, writer))
        running.add(task)
        await task

    async with await asyncio.start_server(serve, "127.0.0.1", free_port):
        async with await Cluster.connect(str(forwarded[1])) as cluster:
            # A connection is up and kept: what is cut next is an answer, not a handshake.
            await cluster.get("/api")
            yield cutter, cluster
        await asyncio.gather(*running)


def _body(name: str) -> Body:
    return {"metadata": {"name": name}, "spec": {"owner": {"id": "o"}, "providerRef": {"name": "p"}}}


def _store() -> Store:
    return Store(lambda _: None)


async def test_a_lost_answer_makes_no_second_object(
    cut: tuple[Cutter, Cluster], cluster: Cluster, namespace: str
) -> None:
    cutter, through = cut
    store = _store()
    cutter.swallow = 1
    entry = await Writer(through, store).create(store.pools, namespace, _body("once"), unique=True)
    stored = (await cluster.list(POOL.path(namespace)))["items"]
    assert cutter.swallow == 0
    assert [item["metadata"]["uid"] for item in stored] == [entry.uid] and store.pools.get(entry.uid) is entry


async def test_a_name_that_others_may_choose_is_not_taken_for_ours(
    cut: tuple[Cutter, Cluster], cluster: Cluster, namespace: str
) -> None:
    cutter, through = cut
    store = _store()
    cutter.swallow = 1
    with pytest.raises(Unavailable):
        await Writer(through, store).create(store.pools, namespace, _body("shared"))
    with pytest.raises(Exists):
        await Writer(through, store).create(store.pools, namespace, _body("shared"))
    assert len((await cluster.list(POOL.path(namespace)))["items"]) == 1


async def test_what_was_there_before_is_never_taken_for_ours(cluster: Cluster, namespace: str) -> None:
    store = _store()
    writer = Writer(cluster, store)
    first = await writer.create(store.pools, namespace, _body("twice"), unique=True)
    with pytest.raises(Exists):
        await writer.create(store.pools, namespace, _body("twice"), unique=True)
    assert (await cluster.get(POOL.path(namespace, "twice")))["metadata"]["uid"] == first.uid


async def test_an_object_that_was_made_again_is_not_changed_by_its_old_id(cluster: Cluster, namespace: str) -> None:
    store = _store()
    writer = Writer(cluster, store)
    old = await writer.create(store.pools, namespace, _body("again"))
    await cluster.delete(POOL.path(namespace, "again"))
    await cluster.create(
        POOL.path(namespace), {"apiVersion": "calayer.dev/v1alpha1", "kind": POOL.name, **_body("again")}
    )
    with pytest.raises(NotFound):
        await writer.change(store.pools, old, {"spec": {"gpuCount": 9}})
    await writer.delete(store.pools, old)
    assert (await cluster.get(POOL.path(namespace, "again")))["spec"]["gpuCount"] == 1


async def test_a_lost_answer_is_not_waited_for_longer_than_clients_wait(
    cut: tuple[Cutter, Cluster], cluster: Cluster, namespace: str
) -> None:
    """An API server that hangs costs half a minute a try: whoever asked is gone by the third."""
    cutter, through = cut
    store = _store()
    cutter.swallow = 1
    with pytest.raises(Unavailable):
        await Writer(through, store, patience=0.0).create(store.pools, namespace, _body("late"), unique=True)
    assert cutter.swallow == 0
