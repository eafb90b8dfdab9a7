"""The last lines of a deployment, over all its nodes: what `GET /tail/...` answers, for the api."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from cal_adapters.errors import AdapterError, InstanceNotFound
from cal_adapters.registry import UnknownAdapter
from cal_crds.cluster import ClusterError
from cal_relay.adapters import Adapters
from cal_relay.archives import Archives
from cal_relay.frames import clip
from cal_relay.index import NodeIndex, NodeRecord
from cal_relay.upstream import explain

_log = logging.getLogger(__name__)

#: Nodes that one request looks at, the youngest ones.
MAX_NODES = 50
#: Seconds for all of them together.
_TIMEOUT = 15.0
_AT_ONCE = 8


class Unreadable(Exception):
    """No log of the deployment could be read; the message says why."""


@dataclass(frozen=True)
class Part:
    """What one node has to say."""

    node: NodeRecord
    lines: Sequence[str]
    #: Why its log could not be read, if so.
    fault: str | None = None


@dataclass(frozen=True)
class Tail:
    """The answer. `provider` is None where there is no node and no archive."""

    lines: list[str]
    provider: str | None


@dataclass
class Tails:
    """Reads logs once, running nodes through their adapters and ended ones from their archives."""

    index: NodeIndex
    adapters: Adapters
    archives: Archives

    async def of_deployment(self, namespace: str, uid: str, count: int) -> Tail:
        """The last `count` lines. Unreadable if every log failed at its provider; ClusterError if archives can't be read."""
        archived = {found.node.uid: found for found in await self.archives.of_deployment(namespace, uid)}
        nodes = self.index.of_deployment(namespace, uid)
        present = {node.uid for node in nodes}
        ended = [Part(found.node, found.lines) for found in archived.values() if found.node.uid not in present]
        kept = {node.uid: archived[node.uid].lines for node in nodes if node.uid in archived}
        parts = ended[-MAX_NODES:] + await self._read_all(nodes[-MAX_NODES:], kept, count)
        if parts and all(part.fault for part in parts):
            raise Unreadable(str(parts[-1].fault))
        return Tail(compose(parts, count), parts[-1].node.provider if parts else None)

    async def _read_all(self, nodes: Sequence[NodeRecord], kept: dict[str, list[str]], count: int) -> list[Part]:
        turn = asyncio.Semaphore(_AT_ONCE)
        deadline = asyncio.get_running_loop().time() + _TIMEOUT

        async def one(node: NodeRecord) -> Part:
            async with turn:
                return await self._read(node, kept.get(node.uid), count, deadline)

        return list(await asyncio.gather(*map(one, nodes)))

    async def _read(self, node: NodeRecord, kept: list[str] | None, count: int, deadline: float) -> Part:
        """One node's lines: what was kept of it if it has ended, else what its provider says."""
        if node.handle is None or (node.over and kept is not None):
            return Part(node, kept or [])
        try:
            async with asyncio.timeout_at(deadline), self.adapters.lend(node.provider, node.credential) as adapter:
                return Part(node, [clip(line) for line in await adapter.logs(node.handle, count)])
        except InstanceNotFound:
            return Part(node, kept or [])
        except (AdapterError, ClusterError, UnknownAdapter, TimeoutError) as error:
            return Part(node, kept) if kept else Part(node, [], explain(node, error))
        except Exception:  # noqa: BLE001
            # The boundary: a fault in one adapter must not hide the logs of nodes at other providers.
            _log.exception("the log of node %s can't be read", node.name)
            return Part(node, [], f"the log of node {node.name} can't be read: internal fault of the relay")


def compose(parts: Sequence[Part], count: int) -> list[str]:
    """At most `count` lines out of those of several nodes, each node's in one piece, named where there is more than one.

    Nodes that run share the room evenly; what they leave goes to ended ones, the youngest first.
    """
    shares = _shares(parts, count)
    shown = [(part, share) for part, share in zip(parts, shares, strict=True) if share]
    if len(shown) == 1 and not shown[0][0].fault:
        return list(_said(shown[0][0])[-shown[0][1] :])
    return [f"[{part.node.name}] {line}" for part, share in shown for line in _said(part)[-share:]]


def _said(part: Part) -> Sequence[str]:
    return [part.fault] if part.fault else part.lines


def _shares(parts: Sequence[Part], count: int) -> list[int]:
    """How many of its last lines each part may show."""
    shares = [0] * len(parts)
    running = [i for i, part in enumerate(parts) if not part.node.over]
    running.sort(key=lambda i: len(_said(parts[i])))
    for place, i in enumerate(running):
        shares[i] = min(len(_said(parts[i])), count // (len(running) - place))
        count -= shares[i]
    for i in reversed(range(len(parts))):
        if parts[i].node.over:
            shares[i] = min(len(_said(parts[i])), count)
            count -= shares[i]
    return shares
