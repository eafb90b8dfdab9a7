"""The verbs of the k8s adapter.

An *instance* is a Pod, named by its mark, with a Secret, a pull Secret and a Service that it owns. The *account* is the cluster,
told by the uid of its kube-system namespace. Prices are the settings' (nobody bills for a Pod).
API: https://kubernetes.io/docs/reference/kubernetes-api/ (1.30 or newer, for scheduling gates).

The Pod is made first, behind a scheduling gate of ours, and owns all the rest; lifting the gate is the purchase. A launch that is cut
off before that leaves a Pod that can't run: `find` doesn't count it, so the next launch completes it, and `list_marked` does, so that
the sweep removes it where nobody launches again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final

from cal_adapters.contract import (
    Account,
    Context,
    Instance,
    LaunchRequest,
    Mark,
    Observation,
    Stop,
    Traits,
)
from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    InstanceNotFound,
    NothingBought,
    OutcomeUnknown,
    Refused,
)
from cal_adapters.k8s import logs, manifests, owned, shapes, states, translate
from cal_adapters.k8s.client import Client
from cal_adapters.k8s.translate import Handle
from cal_crds.cluster import Body
from cal_crds.meta import LABEL_INSTALLATION, LABEL_TOKEN
from cal_crds.node import Offer
from cal_crds.provider import Capabilities, KubernetesSettings, Support

_NOT_ENDED: Final = "status.phase!=Succeeded,status.phase!=Failed"

TRAITS: Final = Traits(
    capabilities=Capabilities(
        adapter_type="on_prem",
        supports=[Support.LOG_STREAMING, Support.MULTI_GPU, Support.DIRECT_PROVISIONING, Support.READINESS_POLL],
        readiness_timeout_seconds=600,
        polling_interval_seconds=10,
        features=["native_k8s", "pod_based"],
        pool_type="cluster",
        provider_pool_id_pattern=translate.POOL_ID,
        provider_pool_id_hint=f"a namespace, or the value of the node label {translate.LABEL_NODE_POOL}",
    ),
    settle_seconds=2.0,
    launch_timeout_seconds=10.0,
    observe_seconds=10.0,
    offers_seconds=15.0,
    concurrency=32,
    calls_per_second=200.0,
    needs_credentials=False,
)
#: A launch gives up by itself shortly before the operator would.
_LAUNCH_SECONDS: Final = 9.0


def create(context: Context) -> KubernetesAdapter:
    """The adapter for one cluster. Connects at the first call."""
    return KubernetesAdapter(context)


class KubernetesAdapter:
    """One cluster."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings.kubernetes or KubernetesSettings()
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    @property
    def traits(self) -> Traits:
        return TRAITS

    async def check(self) -> Account:
        """Whether the cluster can be seen: its identity, all of its Pods and its Nodes."""
        client = await self._connected()
        await client.probe_rights()
        return Account(id=await client.cluster_uid())

    async def offers(self) -> Sequence[Offer]:
        client = await self._connected()
        return shapes.offers(await client.nodes(), await client.pods(fields=_NOT_ENDED), self._settings)

    async def find(self, mark: Mark) -> Sequence[Instance]:
        """The Pod with this mark, wherever it is. One behind our gate isn't bought yet."""
        selector = f"{LABEL_INSTALLATION}={mark.installation},{LABEL_TOKEN}={mark.token}"
        client = await self._connected()
        return await self._instances(client, selector, gated=False)

    async def list_marked(self) -> Sequence[Instance]:
        """Every Pod of ours, those behind the gate too."""
        client = await self._connected()
        return await self._instances(client, f"{LABEL_INSTALLATION}={self._context.installation}", gated=True)

    async def launch(self, request: LaunchRequest) -> Instance:
        try:
            async with asyncio.timeout(_LAUNCH_SECONDS):
                return await self._launch(await self._connected(), request)
        except TimeoutError as error:
            raise OutcomeUnknown(f"The launch took longer than {_LAUNCH_SECONDS:.0f} s") from error

    async def observe(self, handle: str) -> Observation:
        where = Handle.read(handle)
        client = await self._connected()
        pod = await self._own_pod(client, where)
        if pod is None:
            raise InstanceNotFound(f"Pod {where.namespace}/{where.name} doesn't exist any more")
        return states.observation(pod)

    async def stop(self, handle: str) -> Stop:
        """Deletes the Pod and what it owns. Gone when the API server denies the Pod; one on a dead node hangs until then."""
        where = Handle.read(handle)
        client = await self._connected()
        pod = await self._own_pod(client, where)
        if pod is not None:
            if not pod["metadata"].get("deletionTimestamp"):
                await client.delete("pods", where.namespace, where.name, uid=where.uid)
            if await self._own_pod(client, where) is not None:
                return Stop.STOPPING
        if (
            await client.pod(where.namespace, where.name) is None
        ):  # else the name, and what is called so, is another's by now
            await self._delete_owned(client, where)
        return Stop.GONE

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        return await logs.tail(await self._connected(), Handle.read(handle), tail)

    async def follow(self, handle: str, tail: int) -> AsyncGenerator[str, None]:
        """See `FollowsLogs`."""
        async with aclosing(logs.follow(await self._connected(), Handle.read(handle), tail)) as lines:
            async for line in lines:
                yield line

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    # --- steps -----------------------------------------------------------------------------------------------------------

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None:
                self._client = await Client.connect(self._context)
            return self._client

    async def _instances(self, client: Client, selector: str, *, gated: bool) -> list[Instance]:
        found = [pod for pod in await client.pods(selector) if translate.mark_of(pod["metadata"]) is not None]
        cluster = await client.cluster_uid()
        return [translate.instance(cluster, pod) for pod in found if gated or not translate.is_gated(pod)]

    async def _launch(self, client: Client, request: LaunchRequest) -> Instance:
        translate.require_size(request)
        asked = translate.amounts(request)
        price = translate.price(self._settings, asked)
        translate.require_price(request, price)
        namespace = await self._namespace(client, request)
        cluster = await client.cluster_uid()
        body = manifests.pod(request, namespace, self._context.provider, asked, price)
        pod = await self._gated_pod(client, request, body)
        if translate.is_gated(pod):
            pod = await self._complete(client, request, pod)
        return translate.instance(cluster, pod)

    async def _namespace(self, client: Client, request: LaunchRequest) -> str:
        """Where the Pod goes: the pool's namespace, else the settings', else the node's own."""
        pool_id = request.provider_pool_id
        if pool_id and translate.may_be_namespace(pool_id):
            translate.require_namespace(pool_id, self._context.system_namespace)
            if await client.namespace_exists(pool_id):
                translate.require_pool(request, by_label=False)
                return pool_id
        translate.require_pool(request, by_label=bool(pool_id))
        fallback = self._settings.namespace or request.namespace
        return translate.require_namespace(fallback, self._context.system_namespace)

    async def _gated_pod(self, client: Client, request: LaunchRequest, body: Body) -> Body:
        """The Pod of this mark: new and behind the gate, or the one that an earlier launch made."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        pod = await client.create_pod(namespace, body) or await client.pod(namespace, name)
        if pod is None:
            raise OutcomeUnknown(f"Pod {namespace}/{name} exists and doesn't: it is being deleted just now")
        if translate.mark_of(pod["metadata"]) != request.mark:
            raise Refused(f"Pod {namespace}/{name} exists and isn't ours")
        return pod

    async def _complete(self, client: Client, request: LaunchRequest, pod: Body) -> Body:
        """Makes what the Pod needs, then lifts the gate. Refused in between, nothing is left behind."""
        metadata = pod["metadata"]
        try:
            url = await self._make_owned(client, request, pod)
            return await client.patch_pod(metadata["namespace"], metadata["name"], owned.open_gate(url))
        except NothingBought:
            await self._discard(client, pod)
            raise

    async def _make_owned(self, client: Client, request: LaunchRequest, pod: Body) -> str | None:
        """Secrets and Service; returns the endpoint."""
        for secret in owned.secrets(request, pod, self._context.provider):
            await client.apply("secrets", secret)
        service = owned.service(request, pod, self._context.provider)
        if service is None:
            return None
        made = await client.apply("services", service)
        return owned.endpoint(request, made, inside=client.inside)

    async def _discard(self, client: Client, pod: Body) -> None:
        """Removes a Pod that is still behind the gate (its version says so). What fails here is left to the sweep."""
        metadata = pod["metadata"]
        where = Handle("-", metadata["namespace"], metadata["name"], metadata["uid"])
        version = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        with suppress(AdapterError):
            await client.delete("pods", where.namespace, where.name, **version)
            if await client.pod(where.namespace, where.name) is None:
                await self._delete_owned(client, where)

    async def _delete_owned(self, client: Client, where: Handle) -> None:
        await client.delete("services", where.namespace, where.name)
        await client.delete("secrets", where.namespace, where.name)
        await client.delete("secrets", where.namespace, f"{where.name}-pull")

    async def _own_pod(self, client: Client, where: Handle) -> Body | None:
        """The very Pod of the handle, or None if the handle's own cluster denies it. Another cluster's word is none."""
        pod = await client.pod(where.namespace, where.name)
        if pod is not None and pod["metadata"]["uid"] == where.uid:
            return pod
        cluster = await client.cluster_uid()
        if cluster != where.cluster:
            raise CredentialsRefused(f"These credentials open cluster {cluster}; the Pod is in cluster {where.cluster}")
        return None
