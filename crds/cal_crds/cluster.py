"""The API server, as the rest of the system talks to it: dicts in, dicts out, errors with a type, on `kubernetes.aio`.

`kubernetes.aio` brings configuration, TLS, authentication and pooling; its generated methods are left out, since they build a model
object for every reply and don't say which of them may be repeated.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from cal_crds import transport
from cal_crds.meta import METADATA_ONLY

Body = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
_CONNECTIONS = 64
#: With its charset, so that the client library leaves the body to `transport.yaml`.
APPLY_PATCH = "application/apply-patch+yaml; charset=utf-8"


#: What `Cluster.connect` raises where there is no kubeconfig, and no service account, that can be used.
NO_ACCESS = (config.ConfigException, OSError, yaml.YAMLError)


class ClusterError(Exception):
    """The API server refused a request or could not be asked."""

    def __init__(self, status: int, message: str, body: Body | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.body = status, message, body or {}

    @property
    def reason(self) -> str:
        """The `reason` of the Status object, like AlreadyExists."""
        return str(self.body.get("reason", ""))


class NotFound(ClusterError):
    """404: the object isn't there."""


class Conflict(ClusterError):
    """409: another version is stored, or a field belongs to another manager."""


class AlreadyExists(Conflict):
    """409: an object of that name exists."""


class Invalid(ClusterError):
    """400 or 422: the schema, a CEL rule or the request itself was refused."""


class Forbidden(ClusterError):
    """401 or 403: not allowed."""


class Gone(ClusterError):
    """410: the resource version is too old; list again."""


class Unavailable(ClusterError):
    """The API server could not be reached, is overloaded or failed: outcome of a write unknown."""


class Cluster:
    """One connection pool to one API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(
        cls, kubeconfig: str | None = None, context: str | None = None, *, connections: int = _CONNECTIONS
    ) -> Self:
        """By a kubeconfig file, or in-cluster when None; one of `NO_ACCESS` where there is none. A request above so many `connections`
        waits for its turn; each costs 256 KiB."""
        configuration = Configuration()
        if kubeconfig:
            await config.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
        return cls(transport.client(configuration, connections))

    @classmethod
    async def connect_document(cls, kubeconfig: Body) -> Self:
        """By a kubeconfig that is at hand as a document; its current context."""
        configuration = Configuration()
        await config.load_kube_config_from_dict(kubeconfig, client_configuration=configuration)
        return cls(transport.client(configuration, _CONNECTIONS))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def get(self, path: str, **query: str) -> Body:
        """One object, or a list, by a quorum read."""
        return await self.request("GET", path, query=query)

    async def list(self, path: str, **query: str) -> Body:
        """A whole collection, paged through by 500: {"items": [...], "metadata": {"resourceVersion": ...}}."""
        found: Body = {}
        async for page in self.pages(path, **query):
            found = {**page, "items": [*found.get("items", ()), *(page.get("items") or ())]}
        return found

    async def pages(self, path: str, accept: str | None = None, **query: str) -> AsyncGenerator[Body, None]:
        """A whole collection, page by page of at most 500, for those who keep little of each item."""
        token, headers = "", {"Accept": accept} if accept else {}
        while True:
            cut = {"limit": "500", **query, **({"continue": token} if token else {})}
            page = await self.request("GET", path, query=cut, headers=headers)
            yield page
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def list_metadata(self, path: str, **query: str) -> Body:
        """Like `list`, with nothing but the metadata of each item, and without the managedFields in it: they are most of it."""
        found: Body = {"items": []}
        async for page in self.pages(path, METADATA_ONLY, **query):
            for item in page["items"] or ():
                item["metadata"].pop("managedFields", None)
                found["items"].append(item)
            found["metadata"] = page["metadata"]
        return found

    async def create(self, path: str, body: Body, **query: str) -> Body:
        return await self.request("POST", path, body=body, query=query)

    async def merge_patch(self, path: str, body: Body, **query: str) -> Body:
        """Merge patch; give `metadata.resourceVersion` in the body to have it checked."""
        return await self.request("PATCH", path, body=body, query=query, headers={"Content-Type": MERGE_PATCH})

    async def apply(self, path: str, body: Body, manager: str, **query: str) -> Body:
        """Server-side apply, without force: a field of another manager is a Conflict that names it."""
        return await self.request(
            "PATCH", path, body=body, query={"fieldManager": manager, **query}, headers={"Content-Type": APPLY_PATCH}
        )

    async def replace(self, path: str, body: Body, **query: str) -> Body:
        return await self.request("PUT", path, body=body, query=query)

    async def delete(self, path: str, *, uid: str | None = None, **query: str) -> Body:
        """Ask for deletion; with `uid` only of that very object (else Conflict)."""
        return await self.request("DELETE", path, body={"preconditions": {"uid": uid}} if uid else None, query=query)

    async def watch(self, path: str, resource_version: str, **query: str) -> AsyncGenerator[Body, None]:
        """Events {"type", "object"} from there on, bookmarks included. Ends when the server closes it; 410 is `Gone`. Close it after."""
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": resource_version, **query}
        async with self._endless(path, query) as response:
            async for line in transport.lines(response):
                event: Body = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(int(event["object"].get("code", 500)), json.dumps(event["object"]).encode())
                yield event

    async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The lines of a text reply as they come, like a followed Pod log. A line above 1 MiB comes in pieces."""
        async with self._endless(path, query) as response:
            async for line in transport.lines(response, limit=2**20):
                yield line

    @asynccontextmanager
    async def _endless(self, path: str, query: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A reply that may go on for ever. `Unavailable` where it breaks off."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        response = await self._send("GET", path, query, {}, None, timeout)
        try:
            if response.status >= 400:
                raise _error(response.status, await response.read())
            yield response
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(0, f"GET {path}: the reply broke off: {error!r}") from error
        finally:
            transport.cut(response)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Body:
        """One request; the reply's JSON ({} if it has none)."""
        raw = await self.request_raw(method, path, body=body, query=query, headers=headers, timeout=timeout)
        result: Body = json.loads(raw) if raw else {}
        return result

    async def request_raw(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> bytes:
        """One request; the reply's bytes. `timeout` bounds the whole of it, in seconds."""
        response = await self._send(
            method, path, query or {}, headers or {}, body, aiohttp.ClientTimeout(total=timeout)
        )
        try:
            raw = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(0, f"{method} {path}: the reply broke off: {error!r}") from error
        if response.status >= 400:
            raise _error(response.status, raw)
        return raw

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Body | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        target = quote(path, safe="/") + (f"?{urlencode(query)}" if query else "")
        _, url, signed, _, _ = await self._client.param_serialize(
            method, target, header_params=dict(headers), auth_settings=["BearerToken"]
        )
        try:
            sent = transport.yaml(body) if body is not None and headers.get("Content-Type") == APPLY_PATCH else body
            reply = await self._client.call_api(method, url, signed, sent, _request_timeout=timeout)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(0, f"{method} {path}: the API server could not be asked: {error!r}") from error
        response: aiohttp.ClientResponse = reply.response
        return response


_BY_STATUS: dict[int, type[ClusterError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: Invalid,
    422: Invalid,
}


#: A 500 by its status, though no fault of the server's, and tried again in vain: etcd takes no object of that size.
_TOO_LARGE = re.compile("request is too large|message larger than max")


def _error(status: int, raw: bytes) -> ClusterError:
    """The error for a refused request, with the message of the Status object."""
    try:
        body = json.loads(raw)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    message = str(body.get("message") or raw[:500].decode(errors="replace"))
    if body.get("reason") == "AlreadyExists":
        return AlreadyExists(status, message, body)
    if status == 500 and _TOO_LARGE.search(message):
        return Invalid(status, f"the object is too large to be stored: {message}", body)
    return _BY_STATUS.get(status, Unavailable)(status, message, body)
