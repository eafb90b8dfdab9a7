"""An instance's life on a real API server with a real scheduler: bought, placed, seen, stopped, and nothing left."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from cal_adapters.contract import EnvValue, Mark, Readiness, RegistryLogin, State, Stop
from cal_adapters.errors import InstanceNotFound, NoCapacity, OutcomeUnknown, PriceAboveCap, Refused
from cal_adapters.k8s.translate import attribute
from cal_crds.pool import Tenancy

pytestmark = pytest.mark.anyio

Eventually = Callable[..., Any]


@pytest.fixture
def offers_of(site: Any, eventually_async: Eventually) -> Callable[..., Any]:
    """await offers_of(adapter, where=...): the site's offers, once some meet `where`."""

    async def look(adapter: Any, where: Callable[[Any], bool] = lambda offer: True) -> list[Any]:
        async def seen() -> list[Any]:
            return [offer for offer in await adapter.offers() if offer.region == site.region and where(offer)]

        return list(await eventually_async(seen))

    return look


async def test_a_pod_with_four_gpus_runs_on_a_node_with_eight(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, eventually_async: Eventually
) -> None:
    node = site.node(gpus=8)
    offer = next(o for o in await offers_of(adapter, lambda o: o.gpu_count) if o.gpu_count == 4)
    assert (offer.gpu_type, offer.gpu_memory_gb) == ("nvidia-a100-sxm-80gb", 80)
    assert (offer.vcpu, offer.ram_gb, offer.available, offer.price_per_hour) == (8, 34, 2, "8.4")

    request = request_for(offer)
    bought = await adapter.launch(request)
    assert bought.mark == request.mark
    assert bought.price_per_hour == Decimal("8.4")

    async def running() -> Any:
        seen = await adapter.observe(bought.handle)
        return seen if seen.state is State.RUNNING else None

    seen = await eventually_async(running)
    assert seen.readiness is Readiness.YES
    assert seen.node_address == node
    service = json.loads(site.kubectl("get", "service", str(request.mark), "-n", site.namespace, "-o", "json").stdout)
    assert seen.endpoint == f"http://{service['spec']['clusterIP']}:8000"
    assert service["spec"]["selector"].items() <= site.pod(request.mark)["metadata"]["labels"].items()

    left = {o.gpu_count: o.available for o in await offers_of(adapter, lambda o: o.gpu_count)}
    assert left == {1: 4, 2: 2, 3: 1, 4: 1}, "half of the node is taken"
    assert await adapter.find(request.mark) == [bought]
    assert bought in await adapter.list_marked()


async def test_a_stop_leaves_nothing_behind(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, eventually_async: Eventually
) -> None:
    site.node()
    request = request_for((await offers_of(adapter))[0], logins=[RegistryLogin("registry.test", "me", "pw")])
    bought = await adapter.launch(request)
    assert site.names("secrets") == [str(request.mark), f"{request.mark}-pull"]

    async def gone() -> bool:
        return await adapter.stop(bought.handle) is Stop.GONE

    await eventually_async(gone)
    assert site.names("pods,secrets,services") == []
    assert await adapter.find(request.mark) == []
    assert await adapter.stop(bought.handle) is Stop.GONE
    with pytest.raises(InstanceNotFound):
        await adapter.observe(bought.handle)


async def test_secrets_stand_in_secrets_and_not_in_the_pod(
    site: Any, adapter: Any, offers_of: Any, request_for: Any
) -> None:
    site.node()
    request = request_for((await offers_of(adapter))[0], logins=[RegistryLogin("registry.test", "me", "pw")])
    await adapter.launch(request)
    pod = site.pod(request.mark)
    assert "s3cret" not in json.dumps(pod)
    stored = json.loads(site.kubectl("get", "secret", str(request.mark), "-n", site.namespace, "-o", "json").stdout)
    assert {name: base64.b64decode(text).decode() for name, text in stored["data"].items()} == {
        "TOKEN": "s3cret-$(HOME)",
        "MODE": "fast",
    }
    pull = json.loads(site.kubectl("get", "secret", f"{request.mark}-pull", "-n", site.namespace, "-o", "json").stdout)
    login = json.loads(base64.b64decode(pull["data"][".dockerconfigjson"]))["auths"]["registry.test"]
    assert (login["username"], login["password"]) == ("me", "pw")
    assert pod["spec"]["imagePullSecrets"] == [{"name": f"{request.mark}-pull"}]
    for owned in (stored, pull):
        assert owned["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]


async def test_a_pod_that_fits_nowhere_says_why(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, eventually_async: Eventually
) -> None:
    site.node(gpus=2)
    offer = next(o for o in await offers_of(adapter, lambda o: o.gpu_count) if o.gpu_count == 2)
    bought = await adapter.launch(request_for(offer, gpu_count=4))

    async def told() -> Any:
        seen = await adapter.observe(bought.handle)
        return seen if "Unschedulable" in seen.message else None

    seen = await eventually_async(told)
    assert seen.state is State.STARTING
    assert "Insufficient nvidia.com/gpu" in seen.message
    assert await adapter.stop(bought.handle) is Stop.GONE, "nothing runs it, so it goes at once"


async def test_nothing_dearer_than_the_cap_is_bought(site: Any, adapter: Any, offers_of: Any, request_for: Any) -> None:
    site.node(gpus=1)
    offer = next(o for o in await offers_of(adapter, lambda o: o.gpu_count))
    with pytest.raises(PriceAboveCap, match=r"2\.8"):
        await adapter.launch(request_for(offer, max_price_per_hour=Decimal("2.79")))
    assert site.names("pods") == []
    await adapter.launch(request_for(offer, max_price_per_hour=Decimal("2.8")))


async def test_explicit_resources_are_what_is_asked_for_and_paid(
    site: Any, adapter: Any, offers_of: Any, request_for: Any
) -> None:
    site.node()
    resources = {"cpu": "500m", "memory": "3Gi", "storage": "1Gi"}
    request = request_for((await offers_of(adapter))[-1], workload={"resources": resources})
    bought = await adapter.launch(request)
    assert bought.price_per_hour == Decimal("0.025")
    asked = site.pod(request.mark)["spec"]["containers"][0]["resources"]
    assert asked["requests"] == {"cpu": "500m", "memory": "3Gi", "ephemeral-storage": "1Gi"}
    assert asked["limits"] == {"memory": "3Gi", "ephemeral-storage": "1Gi"}


async def test_a_dedicated_pool_shares_no_machine(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, eventually_async: Eventually
) -> None:
    site.node(gpus=8)
    offer = next(o for o in await offers_of(adapter, lambda o: o.gpu_count) if o.gpu_count == 1)
    alone = await adapter.launch(request_for(offer, tenancy=Tenancy.DEDICATED, pool_uid="pool-a"))

    async def state(handle: str) -> Any:
        return await adapter.observe(handle)

    async def placed() -> bool:
        return (await state(alone.handle)).state is State.RUNNING

    await eventually_async(placed)
    other = await adapter.launch(request_for(offer, pool_uid="pool-b"))
    mate = await adapter.launch(request_for(offer, pool_uid="pool-a"))

    async def kept_out() -> bool:
        return "anti-affinity" in (await state(other.handle)).message

    async def let_in() -> bool:
        return (await state(mate.handle)).state is State.RUNNING

    await eventually_async(kept_out)
    await eventually_async(let_in)


async def test_replicas_of_one_deployment_go_to_different_machines(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, eventually_async: Eventually
) -> None:
    """Though one machine has so much more room that the scheduler would take it both times."""
    site.node(cpu="64", memory="256Gi")
    site.node(cpu="2", memory="8Gi")
    offer = next(o for o in await offers_of(adapter, lambda o: o.vcpu == 1))

    async def both_open() -> bool:  # a node is born with a taint, and the offer may be of the other one
        found = json.loads(site.kubectl("get", "nodes", *site.nodes, "-o", "json").stdout)["items"]
        return not any(node["spec"].get("taints") for node in found)

    await eventually_async(both_open)
    places = set()
    for _ in range(2):
        bought = await adapter.launch(request_for(offer, deployment_uid="d-spread"))

        async def placed(handle: str = bought.handle) -> Any:
            return (await adapter.observe(handle)).node_address

        places.add(await eventually_async(placed))
    assert places == set(site.nodes)


async def test_arguments_and_variables_arrive_as_they_are(
    site: Any, adapter: Any, offers_of: Any, request_for: Any
) -> None:
    site.node()
    odd = [
        "--name=a b",
        "'; rm -rf /; echo '",
        "{{ .Values }}",
        "line\nbreak",
        "\u00e4\u2028",
        "- yaml: [",
        "$HOME `id`",
    ]
    env = [EnvValue(f"ODD_{number}", text, secret=number % 2 == 0) for number, text in enumerate(odd)]
    request = request_for((await offers_of(adapter))[0], workload={"command": odd, "args": odd}, env=env)
    await adapter.launch(request)
    container = site.pod(request.mark)["spec"]["containers"][0]
    assert container["command"] == container["args"] == odd
    stored = json.loads(site.kubectl("get", "secret", str(request.mark), "-n", site.namespace, "-o", "json").stdout)
    assert [base64.b64decode(stored["data"][value.name]).decode() for value in env] == odd


async def test_a_pool_may_be_a_namespace(site: Any, adapter: Any, offers_of: Any, request_for: Any) -> None:
    site.node()
    elsewhere = f"{site.namespace}-pool"
    site.kubectl("create", "namespace", elsewhere)
    offer = (await offers_of(adapter))[0]
    bought = await adapter.launch(request_for(offer, provider_pool_id=elsewhere))
    assert bought.id.startswith(f"{elsewhere}/cal-")
    assert await adapter.stop(bought.handle) is not None


async def test_a_pool_may_be_a_label_of_nodes(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, eventually_async: Eventually
) -> None:
    site.node(cpu="2")
    kept = site.node(
        cpu="2",
        labels={"calayer.dev/pool": "Blue.1"},
        taints=[{"key": "calayer.dev/pool", "value": "Blue.1", "effect": "NoSchedule"}],
    )
    blue = lambda offer: any(a.name == "pool" and a.value == "Blue.1" for a in offer.attributes)
    offer = (await offers_of(adapter, blue))[0]
    bought = await adapter.launch(request_for(offer, provider_pool_id="Blue.1"))

    async def placed() -> Any:
        return (await adapter.observe(bought.handle)).node_address

    assert await eventually_async(placed) == kept

    with pytest.raises(NoCapacity, match="kept for"):
        await adapter.launch(request_for(offer))
    common = next(offer for offer in await offers_of(adapter) if attribute(offer, "pool") is None)
    with pytest.raises(NoCapacity, match=r"calayer\.dev/pool=Blue\.1"):
        await adapter.launch(request_for(common, provider_pool_id="Blue.1"))
    outside = await adapter.launch(request_for(common))

    async def beside() -> Any:
        return (await adapter.observe(outside.handle)).node_address

    assert await eventually_async(beside) == site.nodes[0], "a kept node takes no Pods of other pools"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespace": "cal-system"}, "operator's own"),
        ({"provider_pool_id": "cal-system"}, "operator's own"),
        ({"provider_pool_id": "kube-system"}, "belongs to Kubernetes"),
        ({"provider_pool_id": "no such thing!"}, "neither a namespace nor a label value"),
        ({"provider_pool_id": "default\n"}, "neither a namespace nor a label value"),
        ({"provider_pool_id": "../../../.."}, "neither a namespace nor a label value"),
        ({"namespace": "nowhere-at-all"}, "nowhere-at-all"),
        ({"workload": {"image": None}}, "image"),
        ({"workload": {"readinessProbe": {"tcpSocket": {"port": "grpc"}}}}, "grpc"),
        ({"env": [EnvValue("BIG", "x" * 1_200_000, secret=True)]}, "1200000 bytes"),
    ],
)
async def test_what_will_never_do_is_refused_and_leaves_nothing(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, changes: dict[str, Any], words: str
) -> None:
    site.node()
    offer = (await offers_of(adapter))[0]
    with pytest.raises(Refused, match=words):
        await adapter.launch(request_for(offer, **changes))
    assert site.names("pods,secrets,services") == []


async def test_a_pod_of_that_name_that_is_not_ours_is_left_alone(
    site: Any, adapter: Any, offers_of: Any, request_for: Any
) -> None:
    site.node()
    request = request_for((await offers_of(adapter))[0])
    site.kubectl("run", str(request.mark), "--image=none", "-n", site.namespace)
    with pytest.raises(Refused, match="isn't ours"):
        await adapter.launch(request)
    assert site.names("pods") == [str(request.mark)]


async def test_a_copy_of_a_pod_is_not_an_instance(site: Any, adapter: Any, offers_of: Any, request_for: Any) -> None:
    site.node()
    bought = await adapter.launch(request_for((await offers_of(adapter))[0]))
    labels = site.pod(bought.mark)["metadata"]["labels"]
    copy = {"metadata": {"name": "copy", "labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    site.kubectl(
        "create", "-n", site.namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod"} | copy)
    )
    assert await adapter.find(bought.mark) == [bought]
    assert [instance.mark for instance in await adapter.list_marked()].count(bought.mark) == 1


async def test_a_full_quota_is_no_capacity(site: Any, adapter: Any, offers_of: Any, request_for: Any) -> None:
    site.node()
    offer = (await offers_of(adapter))[0]
    site.kubectl("create", "quota", "none", "--hard=pods=0", "-n", site.namespace)
    with pytest.raises(NoCapacity, match="exceeded quota"):
        await adapter.launch(request_for(offer))


async def test_a_launch_that_was_cut_off_is_completed_by_the_next(
    site: Any, adapter: Any, offers_of: Any, request_for: Any, eventually_async: Eventually
) -> None:
    """Between the Pod and its Secret: nothing runs and nothing counts, and the sweep sees it."""
    site.node()
    request = request_for((await offers_of(adapter))[0])
    whole = await adapter.launch(dataclasses.replace(request, mark=Mark(request.mark.installation, "other0000")))
    body = site.pod(whole.mark)
    await adapter.stop(whole.handle)
    site.kubectl("create", "-f", "-", stdin=json.dumps(_cut_off(body, request.mark)))

    assert await adapter.find(request.mark) == []
    assert request.mark in [instance.mark for instance in await adapter.list_marked()]
    bought = await adapter.launch(request)
    assert await adapter.find(request.mark) == [bought]

    async def running() -> bool:
        return (await adapter.observe(bought.handle)).state is State.RUNNING

    await eventually_async(running)
    assert site.names("secrets") == [str(request.mark)]


def _cut_off(body: dict[str, Any], mark: Mark) -> dict[str, Any]:
    """The Pod as the launch first made it: behind the gate, before anything that it owns."""
    metadata = {"name": str(mark), "namespace": body["metadata"]["namespace"]}
    labels = body["metadata"]["labels"] | {"calayer.dev/token": mark.token}
    spec = {key: body["spec"][key] for key in ("containers", "restartPolicy")}
    spec["containers"][0].pop("volumeMounts", None)
    spec |= {"schedulingGates": [{"name": "calayer.dev/launch"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | {"labels": labels}, "spec": spec}


async def test_another_clusters_handle_is_never_not_found(
    site: Any, adapter: Any, kubeconfig: Any, inline: Any, request_for: Any, adapters: Any, offers_of: Any
) -> None:
    site.node()
    bought = await adapter.launch(request_for((await offers_of(adapter))[0]))
    other = adapters(secret={"kubeconfig": inline(kubeconfig)})
    assert (await other.check()).id != (await adapter.check()).id == bought.account
    for verb in (other.observe, other.stop):
        with pytest.raises(Exception, match="the Pod is in cluster") as caught:
            await verb(bought.handle)
        assert not isinstance(caught.value, InstanceNotFound | OutcomeUnknown)
    assert site.pod(bought.mark) is not None
