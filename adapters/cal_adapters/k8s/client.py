"""The wire of the k8s adapter: the objects it needs from an API server, through `Cluster`.

Every error of `Cluster` becomes one of the contract's here, in `translated`, and nowhere else. An answer that isn't the object
that was asked for is an unknown outcome, never an absence.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self, cast

import aiohttp
from kubernetes.aio.config import ConfigException

from cal_adapters.contract import Context
from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    NoCapacity,
    NothingBought,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    Refused,
)
from cal_adapters.k8s.kubeconfig import parse_kubeconfig
from cal_crds import cluster as wire
from cal_crds.cluster import Body, Cluster
from cal_crds.meta import MANAGER_OPERATOR

#: Seconds for one request.
REQUEST_SECONDS: Final = 8.0
_STRATEGIC: Final = {"Content-Type": "application/strategic-merge-patch+json"}
_NEVER_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ConnectionTimeoutError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turns what `Cluster` raises into the contract's errors."""
    try:
        yield
    except wire.ClusterError as error:
        raise translate(error) from error
    except (ValueError, TypeError, AttributeError) as error:  # no JSON, or JSON of another shape
        raise OutcomeUnknown("The API server's answer can't be read") from error


def translate(error: wire.ClusterError) -> AdapterError:
    """The contract's error for an error of the API server; its message is kept, since it names object and right."""
    match error:
        case wire.Forbidden():
            return _refusal(error)
        case wire.NotFound() if error.body.get("kind") == "Status":
            return Refused(error.message)
        case wire.Invalid() | wire.Conflict():
            return Refused(error.message)
        case wire.Unavailable(status=429):
            return RateLimited(error.message, retry_after=_retry_after(error.body))
        case wire.Unavailable() if isinstance(error.__cause__, _NEVER_SENT):
            return NotSent(error.message)
        case _:
            return OutcomeUnknown(error.message or f"The API server answered {error.status}")


def _refusal(error: wire.ClusterError) -> AdapterError:
    """A 403 has three authors: the quota, the authorizer, and every admission plugin with an opinion about the Pod."""
    if error.status == 401:
        return CredentialsRefused("The API server doesn't accept these credentials")
    if "exceeded quota" in error.message or "insufficient quota" in error.message:
        return NoCapacity(error.message)
    if "error looking up service account" in error.message:
        return NothingBought(error.message)  # the namespace is so new that its default account isn't there yet
    if " cannot " in error.message and " resource " in error.message:
        return CredentialsRefused(error.message)
    return Refused(error.message)


def _retry_after(status: Body) -> float | None:
    seconds = (status.get("details") or {}).get("retryAfterSeconds")
    return float(seconds) if isinstance(seconds, int) else None


class Client:
    """One API server. All methods raise the contract's errors."""

    def __init__(self, cluster: Cluster, *, inside: bool) -> None:
        self._cluster = cluster
        #: Whether this process runs in that very cluster, so that its DNS names resolve here.
        self.inside = inside

    @classmethod
    async def connect(cls, context: Context) -> Self:
        """By the credential's kubeconfig, else by the operator's own, else in-cluster. Sends nothing."""
        if context.settings.endpoint:
            raise Refused("spec.endpoint isn't used with k8s: the API server's address stands in the kubeconfig")
        try:
            if context.credentials is not None:
                document = parse_kubeconfig(context.credentials.data)
                return cls(await Cluster.connect_document(document), inside=False)
            return cls(await Cluster.connect(context.kubeconfig), inside=context.kubeconfig is None)
        except (ConfigException, LookupError, TypeError, AttributeError, ValueError, OSError) as error:
            # What a kubeconfig may lack comes in many kinds; its text, which holds keys, stays out of the message.
            raise CredentialsRefused(
                f"No kubeconfig or service account that can be used ({type(error).__name__})"
            ) from error

    async def close(self) -> None:
        await self._cluster.close()

    async def cluster_uid(self) -> str:
        """What tells this cluster from every other: the uid of its kube-system namespace."""
        body = await self._get("Namespace", "/api/v1/namespaces/kube-system")
        return str(body["metadata"]["uid"])

    async def namespace_exists(self, name: str) -> bool:
        """Whether there is such a namespace; raises where the API server doesn't say."""
        return await self._find("Namespace", "/api/v1/namespaces", name) is not None

    async def nodes(self) -> list[Body]:
        return await self._list("/api/v1/nodes")

    async def pods(self, selector: str = "", fields: str = "") -> list[Body]:
        """Pods of all namespaces, to the last page."""
        query = {"labelSelector": selector, "fieldSelector": fields}
        return await self._list("/api/v1/pods", **{key: value for key, value in query.items() if value})

    async def probe_rights(self) -> None:
        """Reads one Pod and one Node of the whole cluster: what every look-up and every offer rests on."""
        with translated():
            await self._cluster.request("GET", "/api/v1/pods", query={"limit": "1"}, timeout=REQUEST_SECONDS)
            await self._cluster.request("GET", "/api/v1/nodes", query={"limit": "1"}, timeout=REQUEST_SECONDS)

    async def pod(self, namespace: str, name: str) -> Body | None:
        """The Pod, or None if the API server itself says that there is none of that name."""
        return await self._find("Pod", f"/api/v1/namespaces/{namespace}/pods", name)

    async def create_pod(self, namespace: str, body: Body) -> Body | None:
        """The new Pod, or None if one of that name exists."""
        with translated():
            try:
                made = await self._cluster.request(
                    "POST", f"/api/v1/namespaces/{namespace}/pods", body=body, timeout=REQUEST_SECONDS
                )
            except wire.AlreadyExists:
                return None
        return _of_kind("Pod", made)

    async def patch_pod(self, namespace: str, name: str, patch: Body) -> Body:
        """Strategic merge: lists are merged by their keys, so that others' entries stay."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        with translated():
            body = await self._cluster.request("PATCH", path, body=patch, headers=_STRATEGIC, timeout=REQUEST_SECONDS)
        return _of_kind("Pod", body)

    async def apply(self, plural: str, body: Body) -> Body:
        """Makes the object; where there is one of that name, makes it so by server-side apply."""
        collection = f"/api/v1/namespaces/{body['metadata']['namespace']}/{plural}"
        manager = {"fieldManager": MANAGER_OPERATOR}
        with translated():
            try:
                made = await self._cluster.request(
                    "POST", collection, body=body, query=manager, timeout=REQUEST_SECONDS
                )
            except wire.AlreadyExists:
                made = await self._cluster.request(
                    "PATCH",
                    f"{collection}/{body['metadata']['name']}",
                    body=body,
                    query={**manager, "force": "true"},
                    headers={"Content-Type": wire.APPLY_PATCH},
                    timeout=REQUEST_SECONDS,
                )
        return _of_kind(body["kind"], made)

    async def delete(self, plural: str, namespace: str, name: str, **preconditions: str) -> None:
        """Asks for deletion. Nothing happens if it isn't there, or isn't the one of the preconditions (uid, resourceVersion)."""
        path = f"/api/v1/namespaces/{namespace}/{plural}/{name}"
        body = {"preconditions": preconditions} if preconditions else None
        with translated():
            try:
                await self._cluster.request("DELETE", path, body=body, timeout=REQUEST_SECONDS)
            except (wire.NotFound, wire.Conflict):
                return

    async def log(self, namespace: str, name: str, container: str, tail: int) -> Sequence[str]:
        """The last lines; raises `wire.ClusterError` as it comes, since only the caller knows what a refusal means here."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
        raw = await self._cluster.request_raw("GET", path, query={"container": container, "tailLines": str(tail)})
        lines = raw.decode(errors="replace").split("\n")  # not splitlines(): a log line may hold other breaks
        return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]

    def follow(self, namespace: str, name: str, container: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The log's lines as they come, each with its time in front; raises `wire.ClusterError` like `log`."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
        return self._cluster.stream(path, container=container, follow="true", timestamps="true", **query)

    async def _get(self, kind: str, path: str) -> Body:
        with translated():
            return _of_kind(kind, await self._cluster.request("GET", path, timeout=REQUEST_SECONDS))

    async def _list(self, path: str, **query: str) -> list[Body]:
        with translated():
            body = await self._cluster.list(path, **query)
        if not str(body.get("kind", "")).endswith("List"):
            raise OutcomeUnknown("The API server's answer isn't a list")
        return cast(list[Body], body["items"])

    async def _find(self, kind: str, collection: str, name: str) -> Body | None:
        with translated():
            try:
                body = await self._cluster.request("GET", f"{collection}/{name}", timeout=REQUEST_SECONDS)
            except wire.NotFound as error:
                if _denies(error.body, collection.rpartition("/")[2], name):
                    return None
                raise OutcomeUnknown("A 404 that isn't the API server's own") from error
        return _of_kind(kind, body)


def _denies(status: Body, plural: str, name: str) -> bool:
    """Whether this is the API server's own word that the very object doesn't exist (not a proxy's 404 page)."""
    details = status.get("details") or {}
    return status.get("kind") == "Status" and details.get("kind") == plural and details.get("name") == name


def _of_kind(kind: str, body: Any) -> Body:
    if not isinstance(body, dict) or body.get("kind") != kind:
        raise OutcomeUnknown(f"The API server's answer isn't a {kind}")
    return body
