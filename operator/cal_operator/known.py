"""What the nodes know of instances: by a quorum read, always begun after the provider was listed, so that a node made in between is never
taken for missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from cal_adapters.contract import Instance
from cal_crds.cluster import Cluster
from cal_crds.meta import NODE


@dataclass
class Known:
    """Of every node that isn't proven gone. Whose provider it was bought through doesn't matter: two ComputeProviders may lead to one account."""

    #: (token, handle) of what is recorded. Handles alone are unique within one account only.
    recorded: set[tuple[str, str]] = field(default_factory=set)
    #: (provider, credential as the node names it) -> the accounts that were bought from through it.
    accounts: dict[tuple[str, str | None], set[str]] = field(default_factory=dict)
    #: Tokens of nodes without a handle yet.
    launching: set[str] = field(default_factory=set)

    def has(self, instance: Instance) -> bool:
        """Whether a node holds the instance, or looks it up and adopts the oldest of its token."""
        if instance.mark is None:
            return False
        return instance.mark.token in self.launching or (instance.mark.token, instance.handle) in self.recorded


async def read(cluster: Cluster) -> Known:
    """All nodes of all namespaces. ClusterError if they can't be read whole."""
    known = Known()
    async for page in cluster.pages(NODE.path()):
        for node in page["items"]:
            status, spec = node.get("status") or {}, node["spec"]
            if status.get("goneTime"):
                continue  # one that was given up looks up nothing any more: what shows up for it late is nobody's
            instance = status.get("instance")
            if instance is None:
                known.launching.add(spec["token"])
                continue
            known.recorded.add((spec["token"], instance["handle"]))
            if owner := instance.get("account"):
                reference = spec["providerRef"]
                known.accounts.setdefault((reference["name"], reference.get("credential")), set()).add(owner)
    return known
