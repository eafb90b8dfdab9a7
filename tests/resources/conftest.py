"""What the resource tests share: one object of each kind with every field filled in, and the life cycle that tools must read right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings

from cal_crds.meta import API_VERSION, KINDS

# No deadline for one example: a busy machine isn't a fault. Examples are the same in every run.
settings.register_profile("cal", deadline=None, derandomize=True)
settings.load_profile("cal")

Object = dict[str, Any]
_NOW = "2026-11-01T12:00:00Z"

_WORKLOAD: Object = {
    "type": "Inference",
    "engine": "vllm",
    "image": "vllm/vllm-openai:v0.11.0",
    "command": ["python3"],
    "args": ["--model", "llama"],
    "env": [
        {"name": "LEVEL", "value": "info"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}},
    ],
    "ports": [{"name": "http", "port": 8000, "protocol": "Http"}, {"name": "metrics", "port": 9000, "protocol": "Tcp"}],
    "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 3},
    "resources": {"cpu": "4", "memory": "16Gi", "storage": "50Gi"},
    "imagePullSecrets": [{"name": "reg"}],
    "workingDir": "/srv",
}
_MODEL: Object = {"name": "llama-2-7b", "version": "v1.0", "id": "meta-llama/Llama-2-7b", "servedName": "llama"}
_OFFER: Object = {
    "id": "rtx3090-1",
    "gpuType": "nvidia-rtx-3090",
    "gpuCount": 1,
    "gpuMemoryGB": 24,
    "vcpu": 8,
    "ramGB": 32,
    "region": "global",
    "machine": "m-1",
    "pricingModel": "fixed",
    "pricePerHour": "0.5",
    "available": 3,
    "attributes": [{"name": "market", "value": "abc"}],
}
_COST: Object = {"accumulated": "1.25", "since": _NOW, "ratePerHour": "0.5"}

_CONDITION: Object = {
    "type": "Ready",
    "status": "True",
    "reason": "AsWanted",
    "message": "all is well",
    "observedGeneration": 1,
    "lastTransitionTime": _NOW,
}

_SPECS: dict[str, Object] = {
    "ComputeProvider": {
        "adapter": "local",
        "endpoint": "http://127.0.0.1:9",
        "desiredState": "Active",
        "credentials": [{"name": "main", "secretRef": {"name": "n"}}],
        "defaultCredential": "main",
        "local": {"maxCpu": 4, "maxMemory": "8Gi"},
    },
    "ComputePool": {
        "displayName": "my-gpu-pool",
        "owner": {"type": "User", "id": "user-123"},
        "providerRef": {"name": "nosana", "credential": "main"},
        "providerPoolID": "market-123",
        "allowedGPUTypes": ["rtx3090"],
        "regions": ["global"],
        "gpuCount": 1,
        "maxCostPerHour": "1.00",
        "tenancy": "Shared",
        "placement": {"strategy": "BestFit"},
        "limits": {"maxNodes": 20, "maxCostPerHour": "10.00", "maxTotalCost": "100.00"},
        "desiredState": "Active",
    },
    "ModelDeployment": {
        "poolRef": {"name": "rtx", "uid": "5f1a"},
        "owner": {"id": "user-123", "organization": "acme"},
        "model": _MODEL,
        "replicas": 1,
        "gpuPerReplica": 1,
        "workload": _WORKLOAD,
        "rollout": {"maxSurge": 1, "maxUnavailable": 0},
        "backoffLimit": 3,
        "pendingTimeoutSeconds": 0,
        "readinessTimeoutSeconds": 1800,
        "maxRuntimeSeconds": 3600,
        "ttlSecondsAfterTerminated": 86400,
        "desiredState": "Running",
        "restartedAt": _NOW,
    },
    "ComputeNode": {
        "deploymentRef": {"name": "llama", "uid": "d-1"},
        "poolRef": {"name": "rtx", "uid": "p-1"},
        "providerRef": {"name": "nosana", "credential": "main"},
        "slot": 0,
        "attempt": 1,
        "predecessor": "n-0",
        "token": "0123456789abcdef0123",
        "account": "acct",
        "templateHash": "abc",
        "providerPoolID": "market-123",
        "tenancy": "Shared",
        "gpuCount": 1,
        "offer": _OFFER,
        "maxPricePerHour": "1.00",
        "model": _MODEL,
        "workload": _WORKLOAD,
    },
}

_STATUSES: dict[str, Object] = {
    "ComputeProvider": {
        "observedGeneration": 1,
        "capabilities": {
            "adapterType": "depin",
            "supports": ["LogStreaming", "Ephemeral"],
            "readinessTimeoutSeconds": 300,
            "pollingIntervalSeconds": 20,
            "pricingModel": "fixed",
            "features": ["job_based"],
            "poolType": "job",
            "providerPoolIDPattern": "^[a-z]+$",
            "providerPoolIDHint": "a word",
        },
        "offers": [_OFFER],
        "offersTime": _NOW,
        "offersError": "none",
        "balance": "42.00",
        "credentials": [{"name": "main", "validity": "Valid", "account": "acct", "balance": "42.00", "message": "ok"}],
    },
    "ComputePool": {
        "observedGeneration": 1,
        "state": "ACTIVE",
        "deployments": 2,
        "nodes": 3,
        "readyNodes": 3,
        "costPerHour": "1.50",
        "cost": _COST,
        "message": "fine",
    },
    "ModelDeployment": {
        "observedGeneration": 1,
        "state": "RUNNING",
        "endpoint": "http://127.0.0.1:8000",
        "replicas": 1,
        "readyReplicas": 1,
        "updatedReplicas": 1,
        "selector": "calayer.dev/deployment-uid=d-1",
        "boundPoolUID": "p-1",
        "lastStartTime": _NOW,
        "firstStartTime": _NOW,
        "attempts": 1,
        "cost": _COST,
        "nodes": [{"name": "n-1", "uid": "u-1", "state": "ready", "endpoint": "http://127.0.0.1:8000"}],
        "errorMessage": "none",
        "waiting": {
            "reason": "NoOffer",
            "message": "none",
            "since": _NOW,
            "until": _NOW,
            "refused": [{"offer": "rtx3090-1", "reason": "AbovePriceCap", "message": "too dear"}],
        },
        "outcome": {"state": "FAILED", "reason": "Crashed", "message": "exit 1", "time": _NOW, "generation": 1},
        "terminatedTime": _NOW,
    },
    "ComputeNode": {
        "observedGeneration": 1,
        "state": "ready",
        "instance": {
            "handle": "h-1",
            "id": "i-1",
            "account": "acct",
            "startTime": _NOW,
            "pricePerHour": "0.5",
            "nodeAddress": "m-1",
        },
        "endpoint": "http://127.0.0.1:8000",
        "answeredTime": _NOW,
        "launchTime": "2026-11-01T12:00:00.123456Z",
        "goneTime": _NOW,
        "ended": {"cause": "Crashed", "message": "exit 1", "time": _NOW, "exitCode": 1},
        "cost": _COST,
        "message": "fine",
        "heartbeat": {
            "state": "Ready",
            "time": _NOW,
            "exposeURL": "http://127.0.0.1:8000",
            "healthScore": 100,
            "gpuAllocated": 1,
            "vcpuAllocated": 8,
            "ramGBAllocated": 32,
            "instanceID": "i-1",
            "errorMessage": "none",
        },
    },
}


def _full(kind: str, name: str = "full") -> Object:
    status = {**_STATUSES[kind], "conditions": [_CONDITION]}
    spec = _SPECS[kind]
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec, "status": status}
    return copy.deepcopy(body)


@pytest.fixture(scope="session")
def full() -> Callable[..., Object]:
    """full(kind, name="full"): a valid object with every field of spec and status filled in (but for what excludes another)."""
    return _full


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
    return {**_CONDITION, "type": type_, "status": status, "reason": reason, "message": f"{reason} it is"}


def _at(kind: str, name: str, kstatus: str, argo: str, status: Object, **metadata: Any) -> Stage:
    body = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": "x", "namespace": "default", "generation": 1, **metadata},
        "spec": copy.deepcopy(_SPECS[kind]),
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
