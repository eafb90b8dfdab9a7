"""A Pod's log through the API server, which asks the kubelet of the Pod's node: the end of it, and what comes.

A followed log breaks whenever the API server, the kubelet or the network between them restarts. Each line comes with its time, so
that reading goes on after the last line that was handed out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from cal_adapters.contract import ENDED_STATES
from cal_adapters.errors import AdapterError, InstanceNotFound
from cal_adapters.k8s.client import Client, translate
from cal_adapters.k8s.manifests import CONTAINER
from cal_adapters.k8s.states import verdict
from cal_adapters.k8s.translate import Handle
from cal_crds import cluster as wire
from cal_crds.cluster import Body

#: Between two looks at a Pod that has nothing to say yet, or whose log broke off.
_PAUSE_SECONDS: Final = 2.0
#: What the API server says of a container that has not started: there is no log yet.
_NOT_YET: Final = ("is waiting to start", "does not have a host assigned", "ContainerCreating", "PodInitializing")


async def tail(client: Client, handle: Handle, lines: int) -> Sequence[str]:
    """The last lines; none before the container starts. AdapterError where no kubelet can be asked."""
    try:
        return await client.log(handle.namespace, handle.name, CONTAINER, lines)
    except wire.ClusterError as error:
        if _not_yet(error):
            return []
        raise _failure(error, handle) from error


async def follow(client: Client, handle: Handle, lines: int) -> AsyncGenerator[str, None]:
    """The last lines and each further one, over all breaks, until the Pod has ended (or is gone) and all was said."""
    reader = _Reader(lines)
    pod = await client.pod(handle.namespace, handle.name)
    if pod is None:
        raise InstanceNotFound(f"Pod {handle.namespace}/{handle.name} doesn't exist")
    while pod is not None and pod["metadata"]["uid"] == handle.uid:
        ended = verdict(pod)[0] in ENDED_STATES
        async with aclosing(reader.read(client, handle)) as said:
            async for line in said:
                yield line
        if ended and reader.complete:
            return
        await asyncio.sleep(_PAUSE_SECONDS)
        pod = await client.pod(handle.namespace, handle.name)


class _Reader:
    """Reads a log in pieces and remembers how far it came."""

    def __init__(self, lines: int) -> None:
        self._query = {"tailLines": str(lines)}
        self._last = ""
        #: Whether the last piece came to its end, rather than breaking off.
        self.complete = False

    async def read(self, client: Client, handle: Handle) -> AsyncGenerator[str, None]:
        """One stream, without the lines that an earlier one handed out."""
        self.complete = False
        try:
            async with aclosing(client.follow(handle.namespace, handle.name, CONTAINER, **self._query)) as stream:
                async for raw in stream:
                    time, _, line = raw.decode(errors="replace").rstrip("\r\n").partition(" ")
                    if _key(time) > _key(self._last):
                        self._last, self._query = time, {"sinceTime": time}
                        yield line
            self.complete = True
        except wire.Unavailable as error:
            if error.status:  # the API server answered: the kubelet can't be reached
                raise _failure(error, handle) from error
        except wire.ClusterError as error:
            if not _not_yet(error):
                raise _failure(error, handle) from error


def _key(time: str) -> tuple[str, str]:
    """RFC 3339 with any number of decimals, comparable: the fraction is padded."""
    seconds, _, fraction = time.removesuffix("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


def _not_yet(error: wire.ClusterError) -> bool:
    return isinstance(error, wire.Invalid) and any(words in error.message for words in _NOT_YET)


def _failure(error: wire.ClusterError, handle: Handle) -> AdapterError:
    """A dead kubelet says nothing about the provider as a whole, so this one error isn't its fault."""
    if isinstance(error, wire.NotFound) and _is_pod(error.body):
        return InstanceNotFound(f"Pod {handle.namespace}/{handle.name} doesn't exist")
    if isinstance(error, wire.Unavailable) and error.status >= 500:
        return AdapterError(f"The log can't be read: the API server doesn't reach the Pod's kubelet ({error.message})")
    return translate(error)


def _is_pod(status: Body) -> bool:
    return status.get("kind") == "Status" and (status.get("details") or {}).get("kind") == "pods"
