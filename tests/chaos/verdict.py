"""Judging from outside: what the API server holds against what the providers bill, and against what was ever bought."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.stage import Stage
from chaos.users import NAMESPACE, PROVIDERS, Users

from cal_crds.cluster import Cluster
from cal_crds.meta import DEPLOYMENT, NODE, POOL

Object = dict[str, Any]


@dataclass
class Picture:
    """Everything at one moment. The providers are asked between the two looks at the nodes: see `still`."""

    pools: dict[str, Object]
    deployments: list[Object]
    nodes: list[Object]
    billing: Mapping[str, Sequence[str]]
    #: Nobody has changed a node meanwhile.
    still: bool

    def alive(self, provider: str) -> list[Object]:
        """Nodes that aren't proven gone."""
        return [node for node in self.nodes if _provider(node) == provider and not _status(node).get("goneTime")]

    def wanted(self, deployment: Object) -> int:
        """Replicas that somebody wants just now, by the specs alone."""
        spec = deployment["spec"]
        pool = self.pools.get(spec["poolRef"]["name"])
        bound = spec["poolRef"].get("uid") or _status(deployment).get("boundPoolUID")
        if pool is None or pool["metadata"].get("deletionTimestamp") or bound not in (None, pool["metadata"]["uid"]):
            return 0
        ended = spec.get("desiredState") == "Terminated" or pool["spec"].get("desiredState") == "Stopped"
        return 0 if ended else int(spec.get("replicas", 1))


@dataclass
class Verdict:
    """What is wrong. `unsettled` alone only says that it isn't over yet."""

    leaked: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.leaked or self.lost or self.unsettled)

    def lines(self) -> list[str]:
        return [f"{name}: {what}" for name, found in vars(self).items() for what in found]


async def look(cluster: Cluster, stage: Stage) -> Picture:
    """Ask the API server and all providers. ClusterError and httpx errors if one can't be asked."""
    before = await cluster.list(NODE.path(NAMESPACE))
    deployments = await cluster.list(DEPLOYMENT.path(NAMESPACE))
    pools = await cluster.list(POOL.path(NAMESPACE))
    billing = await stage.billing()
    after = await cluster.list(NODE.path(NAMESPACE))
    return Picture(
        pools={pool["metadata"]["name"]: pool for pool in pools["items"]},
        deployments=deployments["items"],
        nodes=after["items"],
        billing=billing,
        still=_versions(before) == _versions(after),
    )


def judge(picture: Picture, users: Users) -> Verdict:
    """Compare. The counts mean something once nothing is `unsettled`, or the time for that is over."""
    found = Verdict(unsettled=_unsettled(picture))
    for provider in PROVIDERS:
        tokens = Counter(node["spec"]["token"] for node in picture.alive(provider))
        bills = Counter(picture.billing[provider])
        found.leaked += [
            f"{provider}: {token or 'no mark'} bills, no node has it" for token in (bills - tokens).elements()
        ]
        found.lost += [f"{provider}: node of {token} has no instance" for token in (tokens - bills).elements()]
    by_owner = Counter(
        node["spec"]["deploymentRef"]["uid"] for node in picture.nodes if not _status(node).get("goneTime")
    )
    for deployment in picture.deployments:
        missing = picture.wanted(deployment) - by_owner[deployment["metadata"]["uid"]]
        found.lost += [f"{deployment['metadata']['name']}: a wanted replica has no node"] * max(0, missing)
    there = {deployment["metadata"]["uid"] for deployment in picture.deployments}
    kept = [thing for thing in users.deployments.values() if not thing.doomed]
    found.lost += [f"{thing.name or thing.uid}: acknowledged, and gone" for thing in kept if thing.uid not in there]
    return found


async def doubled(stage: Stage) -> list[str]:
    """Marks for which more than one thing was bought, ever. No later stop heals that."""
    bought = (await stage.bought()).items()
    return [f"{name}: {mark} was bought {n} times" for name, marks in bought for mark, n in marks.items() if n > 1]


def _unsettled(picture: Picture) -> list[str]:
    found = [] if picture.still else ["nodes are changing"]
    nodes: defaultdict[str, list[Object]] = defaultdict(list)
    for node in picture.nodes:
        nodes[node["spec"]["deploymentRef"]["uid"]].append(node)
        if node["metadata"].get("deletionTimestamp"):
            found.append(f"{node['metadata']['name']} is being deleted: {_status(node).get('message')}")
    for deployment in picture.deployments:
        metadata, status, wanted = deployment["metadata"], _status(deployment), picture.wanted(deployment)
        own = [node for node in nodes.pop(metadata["uid"], []) if not _status(node).get("goneTime")]
        state, seen = status.get("state"), status.get("observedGeneration")
        right = state == "RUNNING" if wanted else state in ("TERMINATED", "STOPPED")
        if not right or seen != metadata["generation"] or len(own) != wanted:
            why = status.get("errorMessage") or status.get("waiting") or [_status(node).get("message") for node in own]
            found.append(
                f"{metadata['name']}: {state}, {len(own)} of {wanted} nodes, seen {seen}/{metadata['generation']}: {why}"
            )
    found += [f"nodes of a deployment that is gone: {names}" for names in map(_names, nodes.values())]
    found += [
        f"pool {name} is being deleted"
        for name, pool in picture.pools.items()
        if pool["metadata"].get("deletionTimestamp")
    ]
    return found


def failed(picture: Picture) -> list[str]:
    """Names of deployments that gave up: their users start them again."""
    states = (
        (item["metadata"]["name"], _status(item).get("state"), picture.wanted(item)) for item in picture.deployments
    )
    return [name for name, state, wanted in states if wanted and state in ("FAILED", "STOPPED")]


def _names(nodes: Sequence[Object]) -> list[str]:
    return [node["metadata"]["name"] for node in nodes]


def _status(item: Object) -> Object:
    status: Object = item.get("status") or {}
    return status


def _provider(node: Object) -> str:
    return str(node["spec"]["providerRef"]["name"])


def _versions(found: Object) -> dict[str, str]:
    return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in found["items"]}
