"""Offers from Nodes and Pods, as pure functions: what counts as free, which Nodes are left out, how GPUs are named."""

from __future__ import annotations

from typing import Any

import pytest

from cal_adapters.k8s.gpulabels import accelerators
from cal_adapters.k8s.shapes import MAX_OFFERS, offers, requested
from cal_crds.gpus import matches
from cal_crds.provider import KubernetesSettings

SETTINGS = KubernetesSettings(price_per_gpu_hour="2", price_per_cpu_hour="0.1")


def node(
    name: str = "n", labels: dict[str, str] | None = None, spec: dict[str, Any] | None = None, **amounts: str
) -> Any:
    allocatable = {"cpu": "16", "memory": "64Gi", "pods": "110"} | {
        key.replace("__", "/"): v for key, v in amounts.items()
    }
    ready = [{"type": "Ready", "status": "True"}]
    metadata = {"name": name, "labels": labels or {}}
    return {"metadata": metadata, "spec": spec or {}, "status": {"conditions": ready, "allocatable": allocatable}}


def gpu_node(count: str = "8", labels: dict[str, str] | None = None, **changes: Any) -> Any:
    made = node(labels={"nvidia.com/gpu.product": "NVIDIA-L40S"} | (labels or {}), **changes)
    made["status"]["allocatable"]["nvidia.com/gpu"] = count
    return made


def pod(on: str = "n", ours: bool = False, **requests: str) -> Any:
    labels = {"calayer.dev/installation": "x"} if ours else {}
    spec = {"nodeName": on, "containers": [{"resources": {"requests": requests}}]}
    return {"metadata": {"labels": labels}, "spec": spec}


def gpus(found: list[Any]) -> dict[int, tuple[int | None, int | None, int | None]]:
    return {o.gpu_count: (o.vcpu, o.ram_gb, o.available) for o in found if o.gpu_count}


def test_a_node_is_cut_into_slices_with_their_shares() -> None:
    found = offers([gpu_node("4")], [], SETTINGS)
    assert gpus(found) == {1: (4, 17, 4), 2: (8, 34, 2), 3: (12, 51, 1), 4: (16, 68, 1)}
    assert {o.vcpu for o in found if not o.gpu_count} == {1, 2, 4, 8, 16}
    assert {o.gpu_count: o.price_per_hour for o in found if o.gpu_count} == {1: "2.4", 2: "4.8", 3: "7.2", 4: "9.6"}


def test_our_pods_change_what_is_left_and_others_what_there_is() -> None:
    ours = offers([gpu_node("4")], [pod(ours=True, cpu="4", memory="1Gi")], SETTINGS)
    assert gpus(ours)[1] == (4, 17, 3), "the shape stays; one CPU share is taken"
    others = offers([gpu_node("4")], [pod(cpu="4", memory="1Gi")], SETTINGS)
    assert gpus(others)[1] == (3, 16, 4), "less for everybody"


def test_a_slice_that_cannot_be_had_is_no_offer() -> None:
    taken = pod(ours=True)
    taken["spec"]["containers"][0]["resources"]["requests"] = {"nvidia.com/gpu": "3"}
    assert gpus(offers([gpu_node("4")], [taken], SETTINGS)).keys() == {1}
    assert offers([node(pods="0")], [], SETTINGS) == []


def test_machines_of_one_shape_are_one_offer() -> None:
    found = offers([gpu_node("2", name="a"), gpu_node("2", name="b")], [pod("b", ours=True, cpu="8")], SETTINGS)
    assert gpus(found) == {1: (8, 34, 3), 2: (16, 68, 1)}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({}, {"cpu", "gpu"}),
        ({"spec": {"unschedulable": True}}, set()),
        ({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}, set()),
        ({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}, set()),
        ({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}, {"cpu", "gpu"}),
        ({"spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}}, {"gpu"}),
        ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, set()),
        ({"status": {}}, set()),
        ({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, set()),
        ({"metadata": {"name": "n", "labels": {"kubernetes.io/os": "windows"}}}, set()),
    ],
)
def test_nodes_that_take_no_pods_of_ours_are_left_out(change: dict[str, Any], left: set[str]) -> None:
    found = offers([gpu_node() | change], [], SETTINGS)
    assert {"gpu" if offer.gpu_count else "cpu" for offer in found} == left


@pytest.mark.parametrize(
    ("labels", "resource", "gpu_type", "memory"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"},
         "nvidia.com/gpu", "nvidia-a100-sxm-80gb", 80),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", "nvidia.com/gpu.memory": "40960"},
         "nvidia.com/gpu", "nvidia-a100-sxm-40gb", 40),
        ({"nvidia.com/gpu.product": "Tesla-V100-SXM2", "nvidia.com/gpu.memory": "16384"},
         "nvidia.com/gpu", "nvidia-v100-sxm-16gb", 16),
        ({"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090"}, "nvidia.com/gpu", "nvidia-rtx-4090", 24),
        ({"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090-SHARED"}, "nvidia.com/gpu", "nvidia-rtx-4090-shared", 24),
        ({"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090"}, "nvidia.com/gpu.shared", "nvidia-rtx-4090-shared", 24),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "nvidia.com/gpu.memory": "9856"},
         "nvidia.com/gpu", "nvidia-a100-sxm-mig-1g-10gb", 10),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"},
         "nvidia.com/mig-1g.10gb", "nvidia-a100-sxm-mig-1g-10gb", 10),
        ({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM", "amd.com/gpu.vram": "192G"},
         "amd.com/gpu", "amd-mi300x", 192),
        ({"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}, "nvidia.com/gpu", "nvidia-t4", 16),
        ({}, "nvidia.com/gpu", "nvidia-gpu", None),
        ({}, "gpu.intel.com/xe", "intel-gpu", None),
    ],
)  # fmt: skip
def test_gpu_types_come_from_labels(labels: dict[str, str], resource: str, gpu_type: str, memory: int | None) -> None:
    made = node(labels=labels)
    made["status"]["allocatable"][resource] = "2"
    (found,) = accelerators(made)
    assert (found.resource, found.gpu_type, found.memory_gb) == (resource, gpu_type, memory)


def test_what_is_no_gpu_is_none() -> None:
    made = node()
    made["status"]["allocatable"] |= {"nvidia.com/gpu": "0", "rdma/hca": "8", "example.com/gpu": "1"}
    assert list(accelerators(made)) == []


def test_a_partition_is_not_what_somebody_gets_who_asks_for_a_gpu() -> None:
    assert not matches("a100", "nvidia-a100-sxm-mig-1g-10gb", 10)
    assert matches("a100", "nvidia-a100-sxm-80gb", 80)


def test_offers_of_different_nodes_never_share_an_id() -> None:
    kinds: list[dict[str, str]] = [
        {},
        {"calayer.dev/pool": "blue"},
        {"calayer.dev/pool": "green"},
        {"topology.kubernetes.io/region": "eu"},
        {"topology.kubernetes.io/region": "local"},
        {"nvidia.com/gpu.product": "L40S"},
    ]
    found = offers([gpu_node("2", labels, name=str(i)) for i, labels in enumerate(kinds)], [], SETTINGS)
    assert len({offer.id for offer in found}) == len(found)
    assert {a.value for o in found for a in o.attributes if a.name == "pool"} == {"blue", "green"}


def test_a_large_and_mixed_cluster_stays_within_the_limit() -> None:
    nodes = [gpu_node("8", {"nvidia.com/gpu.memory": str(i)}, name=str(i), cpu=str(8 + i)) for i in range(100)]
    found = offers(nodes, [], SETTINGS)
    assert len(found) == MAX_OFFERS
    prices = [float(offer.price_per_hour) for offer in found]
    assert prices == sorted(prices)


@pytest.mark.parametrize("memory", ["0", "-1", "a lot", "99999999999", "9999999", "9999G"])
def test_labels_that_somebody_wrote_by_hand_do_no_harm(memory: str) -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-L40S-of-a-cousin", "nvidia.com/gpu.memory": memory}
    assert gpus(offers([gpu_node("2", labels, cpu="5M", memory="5Ei")], [], SETTINGS)).keys() == {1, 2}


def test_requests_are_counted_as_the_scheduler_counts_them() -> None:
    """Kubernetes' own rules: the sum of containers and sidecars, or the greediest moment of init; overhead on top."""

    def one(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    def cpu(**spec: Any) -> float:
        return float(requested({"spec": spec})["cpu"])

    assert cpu(containers=[one("1"), one("500m")]) == 1.5
    assert cpu(containers=[one("1")], initContainers=[one("3")]) == 3
    assert cpu(containers=[one("1")], initContainers=[one("2", restartPolicy="Always")]) == 3
    assert cpu(containers=[one("1")], initContainers=[one("2", restartPolicy="Always"), one("3")]) == 5
    assert cpu(containers=[one("1")], overhead={"cpu": "250m"}) == 1.25
    assert cpu(containers=[one("1")], resources={"requests": {"cpu": "4"}}) == 4
    assert requested({"spec": {"containers": [{}]}}) == {"pods": 1}
