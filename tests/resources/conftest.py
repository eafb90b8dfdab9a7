"""What the resource tests share: objects with every field filled in, and the life cycle that tools must read right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

from cal_crds.meta import API_VERSION, KINDS

# No deadline for one example: a busy machine isn't a fault. Examples are the same in every run.
settings.register_profile("cal", deadline=None, derandomize=True)
settings.load_profile("cal")

Object = dict[str, Any]
_NOW = "2026-11-01T12:00:00Z"
_OBJECTS: list[Object] = list(yaml.safe_load_all((Path(__file__).parent / "full.yaml").read_text()))


def _all_of(kind: str, name: str = "full") -> list[Object]:
    return [{**copy.deepcopy(body), "metadata": {"name": name}} for body in _OBJECTS if body["kind"] == kind]


def _full(kind: str, name: str = "full") -> Object:
    return _all_of(kind, name)[0]


@pytest.fixture(scope="session")
def full() -> Callable[..., Object]:
    """full(kind, name="full"): a valid object with all fields of spec and status that go together; see full.yaml."""
    return _full


@pytest.fixture(scope="session")
def variants() -> Callable[..., list[Object]]:
    """variants(kind, name="full"): objects that hold every field between them, the full one first."""
    return _all_of


@pytest.fixture(params=[kind.name for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind's name in turn."""
    name: str = request.param
    return name


# --- the life cycle that kubectl wait, Helm, Flux and Argo CD must read right ---------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A moment in an object's life; what kstatus and what Argo CD's Lua must say of it."""

    name: str
    kstatus: str
    argo: str
    body: Object


def _condition(type_: str, status: str, reason: str) -> Object:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": f"{reason} it is",
        "observedGeneration": 1,
        "lastTransitionTime": _NOW,
    }


def _at(kind: str, name: str, kstatus: str, argo: str, status: Object, **metadata: Any) -> Stage:
    body = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": "x", "namespace": "default", "generation": 1, **metadata},
        "spec": _full(kind)["spec"],
        "status": status,
    }
    return Stage(f"{kind}: {name}", kstatus, argo, body)


def _stages(kind: str) -> list[Stage]:
    ready = _condition("Ready", "True", "AsWanted")
    waits = [_condition("Ready", "False", "InProgress"), _condition("Reconciling", "True", "Provisioning")]
    stalled = [_condition("Ready", "False", "Crashed"), _condition("Stalled", "True", "Crashed")]
    wrong = _condition("Ready", "False", "Invalid")
    return [
        _at(kind, "nobody has seen it", "InProgress", "Progressing", {"observedGeneration": -1}),
        _at(kind, "on its way", "InProgress", "Progressing", {"observedGeneration": 1, "conditions": waits}),
        _at(
            kind,
            "not ready, no more is known",
            "InProgress",
            "Progressing",
            {"observedGeneration": 1, "conditions": [wrong]},
        ),
        _at(kind, "ready", "Current", "Healthy", {"observedGeneration": 1, "conditions": [ready]}),
        _at(
            kind,
            "changed since",
            "InProgress",
            "Progressing",
            {"observedGeneration": 1, "conditions": [ready]},
            generation=2,
        ),
        _at(kind, "failed for good", "Failed", "Degraded", {"observedGeneration": 1, "conditions": stalled}),
        _at(
            kind,
            "failed, then changed",
            "InProgress",
            "Progressing",
            {"observedGeneration": 1, "conditions": stalled},
            generation=2,
        ),
        _at(
            kind,
            "being deleted",
            "Terminating",
            "Progressing",
            {"observedGeneration": 1, "conditions": [ready]},
            deletionTimestamp=_NOW,
            finalizers=["calayer.dev/cleanup"],
        ),
    ]


@pytest.fixture(params=[stage for kind in KINDS for stage in _stages(kind.name)], ids=lambda stage: stage.name)
def stage(request: pytest.FixtureRequest) -> Stage:
    """Each moment of each kind's life in turn."""
    moment: Stage = request.param
    return moment
