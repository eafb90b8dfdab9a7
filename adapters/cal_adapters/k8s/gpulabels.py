"""Which GPUs a Node has: its resources, and the labels that node feature discovery and clouds put on it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cal_adapters.k8s.translate import quantity
from cal_crds.cluster import Body
from cal_crds.gpus import normalise

#: Resources that are GPUs, with their vendor.
_RESOURCE: Final = re.compile(
    r"(?P<nvidia>nvidia\.com/(gpu|gpu\.shared|mig-(?P<profile>[0-9a-z.+]+)))"
    r"|(?P<amd>amd\.com/gpu)|(?P<intel>gpu\.intel\.com/(i915|xe))"
)
#: Where the product stands, by vendor; the first label that is there counts.
_PRODUCT: Final[Mapping[str, tuple[str, ...]]] = {
    "nvidia": ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "k8s.amazonaws.com/accelerator"),
    "amd": ("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name"),
    "intel": ("gpu.intel.com/product",),
}
_MEMORY: Final[Mapping[str, str]] = {"nvidia": "nvidia.com/gpu.memory", "amd": "amd.com/gpu.vram"}
#: More than this is a label that somebody wrote by hand.
_MOST_MIB: Final = 4096 * 1024


@dataclass(frozen=True)
class Accelerator:
    """One kind of GPU on a node."""

    #: The resource to ask for, like nvidia.com/gpu.
    resource: str
    #: Normalised. A partition of a GPU is a type of its own; one that several Pods share in turns ends in `-shared`.
    gpu_type: str
    memory_gb: int | None
    #: Labels that tell nodes with this kind from others, as parts of a label selector.
    selector: tuple[str, ...]


def accelerators(node: Body) -> Iterator[Accelerator]:
    """The kinds of GPU that a node has."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    labels: dict[str, str] = node["metadata"].get("labels") or {}
    for resource in sorted(allocatable):
        found = _RESOURCE.fullmatch(resource)
        if found and quantity(allocatable[resource]) > 0:
            vendor = next(name for name in _PRODUCT if found[name])
            yield _accelerator(resource, vendor, found["profile"], labels)


def _accelerator(resource: str, vendor: str, profile: str | None, labels: Mapping[str, str]) -> Accelerator:
    product = next((key for key in _PRODUCT[vendor] if labels.get(key)), None)
    memory = _MEMORY.get(vendor)
    selector = tuple(f"{key}={labels[key]}" for key in (product, memory) if key and labels.get(key))
    if product is None:
        return Accelerator(resource, f"{vendor}-gpu", None, (f"!{_PRODUCT[vendor][0]}", *selector))
    name = labels[product] if profile is None else f"{labels[product]}-MIG-{profile}"
    partitioned = "-mig-" in name.lower()
    gpu = normalise(name, memory_mib=None if partitioned else _mebibytes(labels.get(memory or "")))
    shared = resource.endswith(".shared") or name.lower().endswith("-shared")
    gpu_type = f"{gpu.slug.removesuffix('-shared')}-shared" if shared else gpu.slug
    return Accelerator(resource, gpu_type, gpu.memory_gb, selector)


def _mebibytes(text: str | None) -> int | None:
    """Memory of one GPU: GFD writes MiB without a unit, AMD's labeller `192G`."""
    if not text or not re.fullmatch(r"[1-9]\d{0,6}[GM]?i?", text):
        return None
    number = int(re.sub(r"\D", "", text))
    mebibytes = number * 1024 if "G" in text else number
    return mebibytes if mebibytes <= _MOST_MIB else None
