"""The world of `k8s`: a real API server, scheduler and controllers, with kwok's machines, a kubelet for logs, and a proxy for faults.

The adapter comes through the proxy by the token of a service account that has the rights which the docs ask for, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from worlds.contract_world import FOREIGN, INSTALLATION, SECRET, Fault, Power, Verb
from worlds.k8s_kubelet import Kubelet, open_kubelet
from worlds.k8s_proxy import PAGE, Answer, Proxy, open_proxy, refusal
from worlds.k8s_site import HOLD, NAMESPACE, Site, kubeconfig, until, upstream

from cal_adapters.contract import Context, Credentials, EnvValue, LaunchRequest, Mark
from cal_adapters.errors import CredentialsRefused
from cal_adapters.k8s import create
from cal_adapters.k8s.translate import GATE, mark_of
from cal_crds.cluster import Body, Cluster
from cal_crds.node import Offer
from cal_crds.pool import Tenancy
from cal_crds.provider import KubernetesSettings, ProviderSpec
from cal_crds.workload import HTTPGet, Port, Probe, Resources, ServedModel, Workload

#: The request of each verb at which it meets its fault. A lost answer is one of a call that changes something.
_REQUESTS: Final[Mapping[Verb, str]] = {
    Verb.CHECK: r"^GET /api/v1/pods\?",
    Verb.OFFERS: r"^GET /api/v1/nodes\?",
    Verb.FIND: r"^GET /api/v1/pods\?",
    Verb.LAUNCH: r"^POST /api/v1/namespaces/[^/]+/pods",
    Verb.OBSERVE: r"^GET /api/v1/namespaces/[^/]+/pods/[^/]+$",
    Verb.STOP: r"^GET /api/v1/namespaces/[^/]+/pods/[^/]+$",
    Verb.LIST_MARKED: r"^GET /api/v1/pods\?",
    Verb.LOGS: r"^GET /api/v1/namespaces/[^/]+/pods/[^/]+/log",
}
_LOSES: Final = {
    Verb.LAUNCH: r"^PATCH /api/v1/namespaces/[^/]+/pods/[^/]+$",
    Verb.STOP: r"^DELETE /api/v1/namespaces/[^/]+/pods/[^/]+$",
}
_DENIED: Final = 'pods is forbidden: User "someone" cannot do resource "pods" in API group "" at the cluster scope'
_QUOTA: Final = "pods is forbidden: exceeded quota: small, requested: pods=1, used: pods=9, limited: pods=9"
_ANSWERS: Final[Mapping[Fault, Answer]] = {
    Fault.NO_CAPACITY: refusal(403, "Forbidden", _QUOTA),
    Fault.REFUSED: refusal(422, "Invalid", "Pod is invalid: spec.containers[0].image: Required value"),
    Fault.CREDENTIALS_REFUSED: refusal(403, "Forbidden", _DENIED),
    Fault.RATE_LIMITED: refusal(
        429, "TooManyRequests", "too many requests, please try again later", retryAfterSeconds=3
    ),
    Fault.SERVER_ERROR: refusal(500, "InternalError", "Internal error occurred: etcdserver: leader changed"),
    Fault.GARBAGE: Answer(200, "<html>It works!</html>"),
    Fault.ANSWER_LOST: Answer(lost=True),
}
_READING: Final = frozenset({Fault.CREDENTIALS_REFUSED, Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.GARBAGE})


class KubernetesWorld:
    """A market of one machine with 16 GPUs. Instances are its namespace's Pods."""

    name = "k8s"
    lacks: Mapping[Power, str] = {}
    faults: Mapping[Verb, Collection[Fault]] = {
        **dict.fromkeys(Verb, _READING),
        Verb.LAUNCH: _READING | {Fault.NO_CAPACITY, Fault.REFUSED, Fault.ANSWER_LOST},
        Verb.STOP: _READING | {Fault.ANSWER_LOST},
        # A log is any text; and one kubelet that fails is no failure of the provider.
        Verb.LOGS: frozenset({Fault.CREDENTIALS_REFUSED, Fault.RATE_LIMITED}),
    }
    crowd = 2 * PAGE + 1

    def __init__(self, site: Site, proxy: Proxy, kubelet: Kubelet, directory: Path) -> None:
        self._site, self._proxy, self._kubelet, self._directory = site, proxy, kubelet, directory
        prices = KubernetesSettings(price_per_gpu_hour="1.5", price_per_cpu_hour="0.1")
        self._settings = ProviderSpec(adapter="k8s", kubernetes=prices)
        self._kubeconfig, self._cluster = "", ""
        self._offer: Offer | None = None

    # --- the protocol

    def context(self, *, installation: str = INSTALLATION, credentials: bool = True) -> Context:
        """With credentials: another cluster by a Secret. Without: the operator's own, which is the same one here."""
        own = self._directory / "kubeconfig"
        own.write_text(self._kubeconfig)
        secret = Credentials("main", {"kubeconfig": self._kubeconfig}) if credentials else None
        return Context("k8s", self._settings, installation, credentials=secret, kubeconfig=str(own))

    async def request(self, mark: Mark, **changes: Any) -> LaunchRequest:
        assert self._offer is not None
        values: dict[str, Any] = {
            "mark": mark,
            "node": f"node-{mark.token}",
            "namespace": NAMESPACE,
            "deployment_uid": "11111111-1111-4111-8111-111111111111",
            "pool_uid": "22222222-2222-4222-8222-222222222222",
            "offer": self._offer,
            "provider_pool_id": None,
            "tenancy": Tenancy.SHARED,
            "gpu_count": 1,
            "max_price_per_hour": Decimal(self._offer.price_per_hour) * 2,
            "model": ServedModel(name="tiny"),
            "workload": Workload(
                image="registry.test/server:1",
                ports=[Port(name="http", port=8000)],
                readiness_probe=Probe(http_get=HTTPGet(path="/health", port="http")),
                resources=Resources(cpu="1", memory="1Gi"),
            ),
            "env": [EnvValue("CAL_TEST_SECRET", SECRET, secret=True)],
        }
        return LaunchRequest(**{**values, **changes})

    def unknown_handle(self) -> str:
        return f"{self._cluster}/{NAMESPACE}/{Mark(INSTALLATION, 'neverexisted')}/{uuid4()}"

    async def billing(self) -> Collection[Mark | None]:
        """Every Pod that the scheduler may have had, and that hasn't ended."""
        return [mark_of(pod["metadata"]) for pod in await self._site.pods() if not _gated(pod) and not _ended(pod)]

    async def advance(self, seconds: float) -> None:
        for pod in await self._site.pods():
            metadata = pod["metadata"]
            if metadata.get("deletionTimestamp") and HOLD in metadata.get("finalizers", ()):
                await self._site.patch(metadata["name"], {"metadata": {"finalizers": None}})
        await asyncio.sleep(0.05)

    async def fail_next(self, verb: Verb, fault: Fault) -> None:
        pattern = _LOSES[verb] if fault is Fault.ANSWER_LOST else _REQUESTS[verb]
        # The client repeats a DELETE by itself, once, when the connection breaks: the fault has to outlast both.
        self._proxy.fail(pattern, _ANSWERS[fault], times=2 if pattern == _LOSES[Verb.STOP] else 1)

    async def add_foreign(self) -> None:
        foreign = create(self.context(installation=FOREIGN))
        await foreign.launch(await self.request(Mark(FOREIGN, "foreigntoken")))
        await foreign.close()
        plain = {"containers": [{"name": "main", "image": "none"}]}
        await self._site.make("pods", {"kind": "Pod", "metadata": {"name": "somebody-elses"}, "spec": plain})

    async def revoke_credentials(self) -> None:
        await self._site.unbind()

    async def reprice(self, offer_id: str, factor: int) -> None:
        """An admin changes the price in the ComputeProvider."""
        assert self._settings.kubernetes is not None
        self._settings.kubernetes.price_per_gpu_hour = str(Decimal("1.5") * factor)
        self._settings.kubernetes.price_per_cpu_hour = str(Decimal("0.1") * factor)

    async def end(self, mark: Mark, exit_code: int) -> None:
        """As the kubelet writes it."""
        reason = "Error" if exit_code else "Completed"
        terminated = {"exitCode": exit_code, "reason": reason}
        container = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        containers = [{**container, "state": {"terminated": terminated}}]
        phase = "Failed" if exit_code else "Succeeded"
        ready = [{"type": "Ready", "status": "False", "reason": "PodCompleted"}]
        await self._site.patch_status(str(mark), {"phase": phase, "containerStatuses": containers, "conditions": ready})
        await self._kubelet.end(str(mark))

    async def lose(self, mark: Mark) -> None:
        """An admin taints the dead machine. The Pod is held until time passes, so that it can be seen."""
        await self._site.patch(str(mark), {"metadata": {"finalizers": [HOLD]}})
        await self._site.taint()

        async def evicted() -> bool:
            return any(pod["metadata"].get("deletionTimestamp") for pod in await self._site.pods())

        await until(evicted)

    async def strange_state(self, mark: Mark) -> None:
        await self._site.patch_status(str(mark), {"phase": "Dreaming"})

    async def say(self, mark: Mark, line: str) -> None:
        await self._kubelet.say(str(mark), line)

    # --- opening

    async def open(self, kubeconfig_text: str) -> None:
        """Waits until the Node is Ready and the service account's rights have come through: the market is open."""
        self._kubeconfig = kubeconfig_text
        self._cluster = (await self._site.admin.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"]
        await until(self._offered)

    async def _offered(self) -> bool:
        adapter = create(self.context())
        try:
            found = [o for o in await adapter.offers() if o.region == self._site.region and o.gpu_count == 1]
        except CredentialsRefused:  # the rights take a moment to reach the authorizer
            return False
        finally:
            await adapter.close()
        self._offer = found[0] if found else None
        return bool(found)


def _gated(pod: Body) -> bool:
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates") or ())


def _ended(pod: Body) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


@asynccontextmanager
async def open_world(fixtures: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KubernetesWorld]:
    path: Path = fixtures.getfixturevalue("kwok_cluster").kubeconfig
    async with (
        await Cluster.connect(str(path)) as admin,
        open_proxy(*upstream(path)) as proxy,
        open_kubelet(tmp_path / "kubelet") as kubelet,
    ):
        site = Site(admin, kubelet)
        await site.set_up()
        world = KubernetesWorld(site, proxy, kubelet, tmp_path)
        await world.open(kubeconfig(proxy.url, await site.token()))
        try:
            yield world
        finally:
            await site.tear_down()
