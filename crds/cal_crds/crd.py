"""The CustomResourceDefinitions: the models' schemas, and beside them what tools see (columns, names, scale, field selectors)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cal_crds.base import Resource
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import CATEGORY, DEPLOYMENT, GROUP, KINDS, NODE, POOL, PROVIDER, VERSION, Kind
from cal_crds.node import ComputeNode
from cal_crds.pool import ComputePool
from cal_crds.provider import ComputeProvider
from cal_crds.schema import Schema, structural

Object = dict[str, Any]

MODELS: Final[dict[Kind, type[Resource]]] = {
    PROVIDER: ComputeProvider,
    POOL: ComputePool,
    DEPLOYMENT: ModelDeployment,
    NODE: ComputeNode,
}

_HEADER: Final = "# Generated from the models in cal_crds by `python -m cal_crds`; edit those.\n"
#: An object that the operator hasn't seen is nobody's "ready": tools compare this with metadata.generation.
_UNSEEN: Final = {"observedGeneration": -1}


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`. `wide` ones show with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False

    def render(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            **({"priority": 1} if self.wide else {}),
        }


def _condition(type_: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_READY: Final = Column("Ready", _condition("Ready"))
_REASON: Final = Column("Reason", _condition("Ready", "reason"))
_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")
_MESSAGE: Final = Column("Message", _condition("Ready", "message"), wide=True)

COLUMNS: Final[dict[Kind, tuple[Column, ...]]] = {
    PROVIDER: (
        Column("Adapter", ".spec.adapter"),
        Column("Wanted", ".spec.desiredState"),
        _READY,
        _REASON,
        Column("Balance", ".status.balance"),
        _AGE,
        Column("Endpoint", ".spec.endpoint", wide=True),
        _MESSAGE,
    ),
    POOL: (
        Column("Provider", ".spec.providerRef.name"),
        Column("Owner", ".spec.owner.id"),
        Column("State", ".status.state"),
        _READY,
        Column("Nodes", ".status.nodes", "integer"),
        Column("$/h", ".status.costPerHour"),
        _AGE,
        Column("Place", ".spec.providerPoolID", wide=True),
        Column("Cap $/h", ".spec.maxCostPerHour", wide=True),
        _MESSAGE,
    ),
    DEPLOYMENT: (
        Column("Pool", ".spec.poolRef.name"),
        Column("Model", ".spec.model.name"),
        Column("State", ".status.state"),
        Column("Wanted", ".spec.replicas", "integer"),
        Column("Answering", ".status.readyReplicas", "integer"),
        _REASON,
        _AGE,
        Column("Endpoint", ".status.endpoint", wide=True),
        _MESSAGE,
    ),
    NODE: (
        Column("Deployment", ".spec.deploymentRef.name"),
        Column("Provider", ".spec.providerRef.name"),
        Column("GPU", ".spec.offer.gpuType"),
        Column("State", ".status.state"),
        _READY,
        Column("$/h", ".status.instance.pricePerHour"),
        _AGE,
        Column("Instance", ".status.instance.id", wide=True),
        Column("Endpoint", ".status.endpoint", wide=True),
        _MESSAGE,
    ),
}

#: Fields that `--field-selector` and watches may filter on, besides metadata.
SELECTABLE: Final[dict[Kind, tuple[str, ...]]] = {
    PROVIDER: (".spec.adapter",),
    POOL: (".spec.providerRef.name", ".spec.owner.id", ".status.state"),
    DEPLOYMENT: (".spec.poolRef.name", ".spec.model.name", ".spec.owner.organization", ".status.state"),
    NODE: (
        ".spec.deploymentRef.name",
        ".spec.poolRef.name",
        ".spec.providerRef.name",
        ".status.state",
        ".status.instance.id",
    ),
}

_SCALE: Final = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def schema(kind: Kind) -> Schema:
    """The structural schema of a kind: its two parts; `apiVersion`, `kind` and `metadata` are the API server's."""
    model = MODELS[kind]
    parts = {name: model.model_fields[name].annotation for name in ("spec", "status")}
    spec, status = (structural(part) for part in parts.values() if isinstance(part, type))
    return {
        "type": "object",
        "description": " ".join((model.__doc__ or "").split()),
        "required": ["spec"],
        "properties": {"spec": spec, "status": {**status, "default": _UNSEEN}},
    }


def crd(kind: Kind) -> Object:
    """The CustomResourceDefinition of a kind."""
    subresources: Object = {"status": {}, **({"scale": _SCALE} if kind is DEPLOYMENT else {})}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema(kind)},
        "subresources": subresources,
        "additionalPrinterColumns": [column.render() for column in COLUMNS[kind]],
        "selectableFields": [{"jsonPath": path} for path in SELECTABLE[kind]],
    }
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": [kind.short],
        "categories": [CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def crds() -> list[Object]:
    """All of them, ready to be applied."""
    return [crd(kind) for kind in KINDS]


def files() -> dict[str, str]:
    """File name -> YAML, one per kind."""
    return {f"{kind.plural}.{GROUP}.yaml": _HEADER + _yaml(crd(kind)) for kind in KINDS}


class _NoAliases(yaml.SafeDumper):
    """Parts that several places share are written out at each."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(document: Object) -> str:
    text: str = yaml.dump(document, Dumper=_NoAliases, sort_keys=False, width=120, allow_unicode=True)
    return text


def folder() -> Path:
    """Where the files are kept: the source root of this package."""
    return Path(__file__).resolve().parent.parent
