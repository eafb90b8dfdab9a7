"""Offers from a cluster's Nodes: what is allocatable, less what Pods request, cut into slices and grouped by shape. Pure.

A node with eight GPUs is offered as slices of one to eight of them, each with its share of CPU and memory, so that a price and a
best fit mean something. Shares come from what is there for our Pods at all (allocatable less the requests of everybody else), so that
an offer stays the same while Pods of ours come and go; only how many can be had changes, and an offer that can't be had is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from cal_adapters.k8s.gpulabels import Accelerator, accelerators
from cal_adapters.k8s.translate import (
    ATTRIBUTE_POOL,
    ATTRIBUTE_RESOURCE,
    ATTRIBUTE_SELECTOR,
    LABEL_NODE_POOL,
    quantity,
)
from cal_crds import money
from cal_crds.cluster import Body
from cal_crds.meta import LABEL_INSTALLATION
from cal_crds.names import digest, slug
from cal_crds.node import Offer, OfferAttribute
from cal_crds.provider import KubernetesSettings

MAX_OFFERS: Final = 500
#: Offers count memory in GB.
_GB: Final = 10**9
_NONE: Final = Decimal(0)
_REGION_LABELS: Final = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
_REPELLING: Final = frozenset({"NoSchedule", "NoExecute"})
#: The largest GPU count that an offer may have.
_MAX_GPUS: Final = 64

Resources = Mapping[str, Decimal]


@dataclass(frozen=True)
class Slice:
    """A shape: what one offer is, whatever the number of machines that have it."""

    accelerator: Accelerator | None
    gpus: int
    vcpu: int
    ram_gb: int
    region: str
    pool: str | None
    #: The labels that its nodes share, as the text of a label selector.
    selector: str


def offers(nodes: Iterable[Body], pods: Iterable[Body], settings: KubernetesSettings) -> list[Offer]:
    """The cluster's offers, cheapest first, at most `MAX_OFFERS`. `pods`: all that have not ended."""
    by_node: dict[str, list[Body]] = defaultdict(list)
    for pod in pods:
        if name := pod["spec"].get("nodeName"):
            by_node[name].append(pod)
    available: Counter[Slice] = Counter()
    for node in nodes:
        if _usable(node):
            available.update(dict(_slices(node, by_node[node["metadata"]["name"]], settings.region)))
    found = [_offer(shape, count, settings) for shape, count in available.items() if count > 0]
    return sorted(found, key=lambda offer: (money.parse(offer.price_per_hour), offer.id))[:MAX_OFFERS]


def _usable(node: Body) -> bool:
    """Ready, open to new Pods, not on its way out, and for Linux containers."""
    metadata, conditions = node["metadata"], (node.get("status") or {}).get("conditions") or ()
    ready = any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)
    windows = (metadata.get("labels") or {}).get("kubernetes.io/os") == "windows"
    return ready and not windows and not metadata.get("deletionTimestamp") and not node["spec"].get("unschedulable")


def _slices(node: Body, pods: Sequence[Body], default_region: str) -> Iterator[tuple[Slice, int]]:
    """Each slice of the node with how often it can be had there just now."""
    base, free = _amounts(node, pods)
    place = _place(node, default_region)
    repelled = _repelled_by(node, place.pool)
    if not repelled:
        yield from _cpu_slices(place, base, free)
    for accelerator in accelerators(node):
        if repelled <= {accelerator.resource}:
            yield from _gpu_slices(accelerator, place, base, free)


@dataclass(frozen=True)
class _Place:
    region: str
    pool: str | None
    selector: tuple[str, ...]


def _place(node: Body, default_region: str) -> _Place:
    labels = node["metadata"].get("labels") or {}
    pool, region_label = (
        labels.get(LABEL_NODE_POOL) or None,
        next((key for key in _REGION_LABELS if labels.get(key)), None),
    )
    region = f"{region_label}={labels[region_label]}" if region_label else f"!{_REGION_LABELS[0]}"
    kept = f"{LABEL_NODE_POOL}={pool}" if pool else f"!{LABEL_NODE_POOL}"
    return _Place(labels[region_label] if region_label else default_region, pool, (region, kept))


def _repelled_by(node: Body, pool: str | None) -> set[str]:
    """The keys of taints that keep ordinary Pods of ours away."""
    taints = [taint for taint in node["spec"].get("taints") or () if taint.get("effect") in _REPELLING]
    return {
        taint["key"]
        for taint in taints
        if not (pool and taint["key"] == LABEL_NODE_POOL and taint.get("value") == pool)
    }


def _amounts(node: Body, pods: Sequence[Body]) -> tuple[Resources, Resources]:
    """What the node has for our Pods at all, and what of it is free."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    base = {name: quantity(amount) for name, amount in allocatable.items()}
    free = dict(base)
    for pod in pods:
        ours = LABEL_INSTALLATION in (pod["metadata"].get("labels") or {})
        for name, amount in requested(pod).items():
            free[name] = free.get(name, _NONE) - amount
            if not ours:
                base[name] = base.get(name, _NONE) - amount
    return base, free


def requested(pod: Body) -> Resources:
    """What the scheduler counts for a Pod: the sum of its containers or its greediest init container, plus overhead."""
    spec = pod["spec"]
    steady: Resources = {}
    peak: Resources = {}
    for container in spec.get("initContainers") or ():
        own = _requests(container)
        if container.get("restartPolicy") == "Always":  # a sidecar: it stays
            steady = _sum(steady, own)
            peak = _most(peak, steady)
        else:
            peak = _most(peak, _sum(steady, own))
    for container in spec.get("containers") or ():
        steady = _sum(steady, _requests(container))
    total = {**_most(peak, steady), **_requests(spec)}  # requests of the Pod as a whole replace the sum
    return {
        "pods": Decimal(1),
        **_sum(total, {name: quantity(text) for name, text in (spec.get("overhead") or {}).items()}),
    }


def _requests(holder: Mapping[str, Any]) -> dict[str, Decimal]:
    found = (holder.get("resources") or {}).get("requests") or {}
    return {name: quantity(text) for name, text in found.items()}


def _sum(one: Resources, other: Resources) -> Resources:
    return {name: one.get(name, _NONE) + other.get(name, _NONE) for name in {*one, *other}}


def _most(one: Resources, other: Resources) -> Resources:
    return {name: max(one.get(name, _NONE), other.get(name, _NONE)) for name in {*one, *other}}


def _cpu_slices(place: _Place, base: Resources, free: Resources) -> Iterator[tuple[Slice, int]]:
    """Slices of 1, 2, 4, ... CPUs and of all of them, without GPUs."""
    cpus, ram = int(base.get("cpu", 0)), int(base.get("memory", 0)) // _GB
    sizes = {2**power for power in range(cpus.bit_length()) if 2**power <= cpus} | {cpus}
    for vcpu in sorted(sizes - {0}):
        shape = Slice(None, 0, vcpu, max(1, ram * vcpu // cpus), place.region, place.pool, ",".join(place.selector))
        yield shape, _fits(shape, free)


def _gpu_slices(
    accelerator: Accelerator, place: _Place, base: Resources, free: Resources
) -> Iterator[tuple[Slice, int]]:
    """Slices of each number of GPUs up to 16, and of all of them, with their shares of CPU and memory."""
    gpus = int(base.get(accelerator.resource, 0))
    cpu, ram = base.get("cpu", _NONE), int(base.get("memory", 0)) // _GB
    selector = ",".join((*accelerator.selector, *place.selector))
    sizes = {*range(1, min(gpus, 16) + 1), min(gpus, _MAX_GPUS)} if gpus > 0 else set()
    for count in sorted(sizes):
        vcpu, share = max(1, int(cpu * count / gpus)), max(1, ram * count // gpus)
        shape = Slice(accelerator, count, vcpu, share, place.region, place.pool, selector)
        yield shape, _fits(shape, free)


def _fits(shape: Slice, free: Resources) -> int:
    """How often the slice can be had of what is free."""
    counts = [
        int(free.get("pods", 0)),
        int(free.get("cpu", 0) // shape.vcpu),
        int(free.get("memory", 0) // (shape.ram_gb * _GB)),
    ]
    if shape.accelerator:
        counts.append(int(free.get(shape.accelerator.resource, 0)) // shape.gpus)
    return max(0, min(counts))


def _offer(shape: Slice, count: int, settings: KubernetesSettings) -> Offer:
    gpu, attributes = shape.accelerator, [OfferAttribute(name=ATTRIBUTE_SELECTOR, value=shape.selector)]
    if gpu:
        attributes.append(OfferAttribute(name=ATTRIBUTE_RESOURCE, value=gpu.resource))
    if shape.pool:
        attributes.append(OfferAttribute(name=ATTRIBUTE_POOL, value=shape.pool))
    hourly = (
        money.parse(settings.price_per_gpu_hour) * shape.gpus + money.parse(settings.price_per_cpu_hour) * shape.vcpu
    )
    return Offer(
        id=_offer_id(shape),
        gpu_type=gpu.gpu_type if gpu else None,
        gpu_count=shape.gpus,
        gpu_memory_gb=gpu.memory_gb if gpu else None,
        vcpu=min(shape.vcpu, 100_000),
        ram_gb=min(shape.ram_gb, 1_000_000),
        region=shape.region,
        price_per_hour=money.render(hourly),
        available=min(count, 1_000_000),
        attributes=attributes,
    )


def _offer_id(shape: Slice) -> str:
    """Readable, the same at every refresh, and different wherever the nodes to choose from are."""
    head = f"{shape.gpus}x-{shape.accelerator.gpu_type}" if shape.accelerator else "cpu"
    resource = shape.accelerator.resource if shape.accelerator else ""
    unique = digest(shape.selector, resource, shape.region, length=6)
    return f"{slug(head, 100)}-{shape.vcpu}cpu-{shape.ram_gb}gb-{slug(shape.region)}-{unique}"
