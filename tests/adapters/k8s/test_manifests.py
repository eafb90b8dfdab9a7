"""The objects of an instance where a real cluster wouldn't tell the difference, or not in time."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from cal_adapters.contract import LaunchRequest, Mark
from cal_adapters.errors import Refused
from cal_adapters.k8s import manifests, owned, translate
from cal_adapters.k8s.translate import Handle
from cal_crds.node import Offer, OfferAttribute
from cal_crds.pool import Tenancy
from cal_crds.workload import ServedModel, Workload

Requests = Callable[..., LaunchRequest]


@pytest.fixture
def request_() -> Requests:
    """request_(ports=[...], gpu_count=2, offer=...): fields of the workload, and of the request."""

    def make(*, gpu_count: int = 0, offer: Offer | None = None, **workload: Any) -> LaunchRequest:
        return LaunchRequest(
            mark=Mark("0a1b2c3d4e", "sometoken"),
            node="n",
            namespace="ns",
            deployment_uid="d",
            pool_uid="p",
            offer=offer or Offer(id="cpu"),
            provider_pool_id=None,
            tenancy=Tenancy.SHARED,
            gpu_count=gpu_count,
            max_price_per_hour=None,
            model=ServedModel(name="m"),
            workload=Workload.model_validate({"image": "i"} | workload),
        )

    return make


def build(request: LaunchRequest, provider: str = "k8s") -> Any:
    return manifests.pod(request, "ns", provider, translate.amounts(request), Decimal(0))


OWNER = {"metadata": {"name": "cal-x", "namespace": "ns", "uid": "u"}}
HTTP = {"name": "http", "port": 8000}


def test_two_names_of_one_port_are_one_port(request_: Requests) -> None:
    ports = [HTTP, {"name": "also", "port": 8000}, {"name": "metrics", "port": 9000}]
    request = request_(ports=ports)
    assert build(request)["spec"]["containers"][0]["ports"] == [{"containerPort": 8000}, {"containerPort": 9000}]
    made = owned.service(request, OWNER, "k8s")
    assert made is not None
    assert [(port["name"], port["port"]) for port in made["spec"]["ports"]] == [("http", 8000), ("metrics", 9000)]


def test_a_workload_without_ports_has_no_service_and_is_ready_when_it_runs(request_: Requests) -> None:
    request = request_()
    assert owned.service(request, OWNER, "k8s") is None
    assert "readinessProbe" not in build(request)["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("workload", "probe"),
    [
        ({"ports": [HTTP]}, {"tcpSocket": {"port": 8000}}),
        (
            {"ports": [HTTP], "readinessProbe": {"httpGet": {"path": "/h", "port": "http"}, "periodSeconds": 7}},
            {"httpGet": {"path": "/h", "port": 8000}, "periodSeconds": 7, "timeoutSeconds": 3},
        ),
    ],
)
def test_readiness(request_: Requests, workload: dict[str, Any], probe: dict[str, Any]) -> None:
    assert build(request_(**workload))["spec"]["containers"][0]["readinessProbe"] == probe


@pytest.mark.parametrize(
    ("protocol", "address", "inside", "url"),
    [
        ("Http", "10.0.0.1", False, "http://10.0.0.1:8000"),
        ("WebSocket", "10.0.0.1", False, "ws://10.0.0.1:8000"),
        ("Tcp", "fd00::1", False, "tcp://[fd00::1]:8000"),
        ("Http", "10.0.0.1", True, "http://cal-x.ns.svc:8000"),
        ("Http", "", False, "http://cal-x.ns.svc:8000"),
    ],
)
def test_the_endpoint(request_: Requests, protocol: str, address: str, inside: bool, url: str) -> None:
    request = request_(ports=[HTTP | {"protocol": protocol}])
    made = {"metadata": {"name": "cal-x", "namespace": "ns"}, "spec": {"clusterIP": address}}
    assert owned.endpoint(request, made, inside=inside) == url


def test_a_provider_name_too_long_for_a_label_becomes_a_hash(request_: Requests) -> None:
    value = build(request_(), "p" * 200)["metadata"]["labels"]["calayer.dev/provider"]
    assert len(value) <= 63


@pytest.mark.parametrize(("gpu_type", "resource"), [("nvidia-l40s", "nvidia.com/gpu"), ("amd-mi300x", "amd.com/gpu")])
def test_an_offer_without_a_resource_name_has_its_vendors(request_: Requests, gpu_type: str, resource: str) -> None:
    pod = build(request_(gpu_count=2, offer=Offer(id="x", gpu_type=gpu_type, gpu_count=2)))
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {resource: "2"}
    assert pod["spec"]["tolerations"] == [{"key": resource, "operator": "Exists"}]
    assert pod["spec"]["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory"}}]


def test_an_offer_of_nobody_knows_which_gpu_is_refused(request_: Requests) -> None:
    with pytest.raises(Refused, match="GPU resource"):
        build(request_(gpu_count=1, offer=Offer(id="x", gpu_type="strange")))


def test_the_offers_selector_becomes_affinity(request_: Requests) -> None:
    attributes = [OfferAttribute(name="node-selector", value="a.b/c=D-1,!e")]
    node = build(request_(offer=Offer(id="x", attributes=attributes)))["spec"]["affinity"]["nodeAffinity"]
    terms = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    wanted = [{"key": "a.b/c", "operator": "In", "values": ["D-1"]}, {"key": "e", "operator": "DoesNotExist"}]
    assert terms == [{"matchExpressions": wanted}]


@pytest.mark.parametrize(
    "text", ["", "a/b/c", "a/b/c/d/e", "a//c/d", "cal-1-2", "../../../x", "a/b/c?d/e", "a/b/c/d\n"]
)
def test_a_handle_of_somebody_else_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        Handle.read(text)
