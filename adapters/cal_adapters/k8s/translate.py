"""What an instance is in Kubernetes, both ways and pure: handles, marks, places, prices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Self

from kubernetes.utils.quantity import parse_quantity

from cal_adapters.contract import Instance, LaunchRequest, Mark
from cal_adapters.errors import NoCapacity, PriceAboveCap, Refused
from cal_crds import money
from cal_crds.cluster import Body
from cal_crds.meta import GROUP, LABEL_INSTALLATION, LABEL_TOKEN
from cal_crds.node import Offer
from cal_crds.provider import KubernetesSettings

#: On Nodes: the node is kept for pools whose provider_pool_id is this value.
LABEL_NODE_POOL: Final = f"{GROUP}/pool"
ANNOTATION_PRICE: Final = f"{GROUP}/price-per-hour"
ANNOTATION_ENDPOINT: Final = f"{GROUP}/endpoint"
ANNOTATION_NODE: Final = f"{GROUP}/node"
#: Holds the scheduler back until all objects of the instance exist: lifting it is the purchase.
GATE: Final = f"{GROUP}/launch"

MAX_SECRET_BYTES: Final = 2**20

#: Names of the attributes that this adapter gives its offers, and reads back at launch.
ATTRIBUTE_POOL: Final = "pool"
ATTRIBUTE_SELECTOR: Final = "node-selector"
ATTRIBUTE_RESOURCE: Final = "gpu-resource"

#: A namespace or a label value; empty: the settings decide.
POOL_ID: Final = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MONEY: Final = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?")
ENDPOINT: Final = re.compile(r"(http|ws|tcp)://[-a-zA-Z0-9.:\[\]]{1,300}")
#: Its parts go into URL paths.
_HANDLE: Final = re.compile(
    r"(?P<cluster>[-0-9A-Za-z]+)/(?P<namespace>[a-z0-9][-a-z0-9]*)/(?P<name>[a-z0-9][-a-z0-9]*)/(?P<uid>[-0-9A-Za-z]+)"
)
#: Resource names of whole GPUs by vendor, for offers that don't tell theirs.
_VENDORS: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/xe"}


@dataclass(frozen=True)
class Handle:
    """Which Pod of which cluster. As text: `<kube-system's uid>/<namespace>/<name>/<the Pod's uid>`."""

    cluster: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.namespace}/{self.name}/{self.uid}"

    @classmethod
    def read(cls, text: str) -> Self:
        found = _HANDLE.fullmatch(text)
        if found is None:
            raise Refused("This handle isn't one of the k8s adapter")
        return cls(**found.groupdict())


@dataclass(frozen=True)
class Amounts:
    """What a Pod asks for. `memory` and `storage` are quantities; None: nothing is asked."""

    gpus: int
    gpu_resource: str | None
    cpu: Decimal | None
    memory: str | None
    storage: str | None


def mark_of(metadata: Mapping[str, Any]) -> Mark | None:
    """The mark of a Pod: its labels say it, and so does its name. A copy of a Pod (`kubectl debug --keep-labels`) isn't ours."""
    labels = metadata.get("labels") or {}
    mark = Mark.read(f"cal-{labels.get(LABEL_INSTALLATION, '')}-{labels.get(LABEL_TOKEN, '')}")
    return mark if mark is not None and metadata.get("name") == str(mark) else None


def instance(cluster: str, pod: Body) -> Instance:
    """The instance that a Pod of ours is."""
    metadata = pod["metadata"]
    price = annotation(pod, ANNOTATION_PRICE, _MONEY)
    return Instance(
        handle=str(Handle(cluster, metadata["namespace"], metadata["name"], metadata["uid"])),
        id=f"{metadata['namespace']}/{metadata['name']}",
        mark=mark_of(metadata),
        account=cluster,
        price_per_hour=money.parse(price) if price else None,
        started=moment(metadata.get("creationTimestamp")),
    )


def annotation(pod: Body, name: str, pattern: re.Pattern[str]) -> str | None:
    """An annotation of ours; None where it isn't what we write, since others may write there too."""
    value = (pod["metadata"].get("annotations") or {}).get(name)
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def moment(text: str | None) -> datetime | None:
    """A time of the API server."""
    return datetime.fromisoformat(text) if text else None


def is_gated(pod: Body) -> bool:
    """Whether our gate still holds the scheduler back: nothing runs, and nothing will without a further call of ours."""
    return any(gate.get("name") == GATE for gate in pod["spec"].get("schedulingGates") or ())


def quantity(text: Any) -> Decimal:
    """A Kubernetes quantity as a number; 0 for none."""
    return Decimal(parse_quantity(text)) if text not in (None, "") else Decimal(0)


def attribute(offer: Offer, name: str) -> str | None:
    """One of the offer's attributes."""
    return next((item.value for item in offer.attributes if item.name == name), None)


def amounts(request: LaunchRequest) -> Amounts:
    """What the Pod asks for: what the workload says, else what the offer has."""
    wanted, offer = request.workload.resources, request.offer
    cpu = quantity(wanted.cpu) if wanted and wanted.cpu else Decimal(offer.vcpu) if offer.vcpu else None
    memory = wanted.memory if wanted and wanted.memory else f"{offer.ram_gb}G" if offer.ram_gb else None
    return Amounts(
        gpus=request.gpu_count,
        gpu_resource=_gpu_resource(offer) if request.gpu_count else None,
        cpu=cpu,
        memory=memory,
        storage=wanted.storage if wanted else None,
    )


def _gpu_resource(offer: Offer) -> str:
    resource = attribute(offer, ATTRIBUTE_RESOURCE) or _VENDORS.get((offer.gpu_type or "").partition("-")[0])
    if resource is None:
        raise Refused(f"Offer {offer.id!r} doesn't tell which GPU resource to ask for")
    return resource


def price(settings: KubernetesSettings, asked: Amounts) -> Decimal:
    """US dollars per hour of a Pod: its GPUs and CPUs at the prices of the ComputeProvider."""
    gpus = money.parse(settings.price_per_gpu_hour) * asked.gpus
    return gpus + money.parse(settings.price_per_cpu_hour) * (asked.cpu or 0)


def require_price(request: LaunchRequest, actual: Decimal) -> None:
    """Raises PriceAboveCap where the Pod would cost more than the request allows."""
    cap = request.max_price_per_hour
    if cap is not None and actual > cap:
        raise PriceAboveCap(f"The Pod costs {money.render(actual)} US dollars per hour; the cap is {money.render(cap)}")


def require_namespace(name: str, system_namespace: str) -> str:
    """The namespace, if instances may be put there."""
    if name == system_namespace:
        raise Refused(f"Namespace {name!r} is the operator's own: no instance is put there")
    if name.startswith("kube-"):
        raise Refused(f"Namespace {name!r} belongs to Kubernetes: no instance is put there")
    return name


def require_size(request: LaunchRequest) -> None:
    """Raises Refused where the environment is larger than a Secret may be; asked before anything is made."""
    size = sum(len(value.value.encode()) for value in request.env)
    if size > MAX_SECRET_BYTES:
        raise Refused(f"The environment has {size} bytes; a Kubernetes Secret holds {MAX_SECRET_BYTES}")


def may_be_namespace(pool_id: str) -> bool:
    """Whether a provider_pool_id could name a namespace; else it can only be the value of a node label."""
    if not re.fullmatch(POOL_ID, pool_id):
        raise Refused(f"provider_pool_id {pool_id!r} is neither a namespace nor a label value")
    return _NAMESPACE.fullmatch(pool_id) is not None


def require_pool(request: LaunchRequest, *, by_label: bool) -> None:
    """Raises NoCapacity where the offer's nodes are kept for other pools, or where the pool selects nodes and these aren't among them."""
    value, kept = request.provider_pool_id or "", attribute(request.offer, ATTRIBUTE_POOL)
    if kept and value != kept:
        raise NoCapacity(f"Offer {request.offer.id!r} is on nodes that are kept for {LABEL_NODE_POOL}={kept}")
    if by_label and value != kept:
        raise NoCapacity(
            f"{value!r} is no namespace, and offer {request.offer.id!r} isn't on nodes labelled {LABEL_NODE_POOL}={value}"
        )
