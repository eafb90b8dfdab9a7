"""Logs: from the running host's WebSocket while a job runs, from the job's result afterwards.

A host sends what was said so far, without saying where that ends, and then each further piece. When a connection breaks it sends all of
it again to the next one; `_Heard` tells the new from the repeated.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, WebSocketException

from cal_adapters.errors import CredentialsRefused, OutcomeUnknown
from cal_adapters.nosana import states
from cal_adapters.nosana.answers import Deployment, Job
from cal_adapters.nosana.client import Client

#: Seconds without a further piece after which the history counts as said, and the longest it may take.
_QUIET: Final = 0.4
_HISTORY: Final = 5.0
_OPEN: Final = 5.0
#: Seconds between two looks at a job that doesn't run yet, and between two connections.
_PAUSE: Final = 2.0
#: Connections in a row that brought nothing, after which the stream says so instead of staying silent.
_MAX_FAILURES: Final = 5
#: Seconds without a piece after which the job is looked at.
_SILENCE: Final = 10.0
_MAX_FRAME: Final = 1 << 20
_UNAUTHORIZED: Final = 3000
#: What some accounts get as header is a signature alone; hosts want the signed message before it.
_MESSAGE: Final = "DEPLOYMENT_HEADER"


class _Frame(BaseModel):
    """What a host sends: a JSON document in a string."""

    data: str


class _Piece(BaseModel):
    """A piece of output, of the container or (`info`, `error`) of the host about it."""

    type: str = ""
    timestamp: float = 0
    message: Any = ""

    @property
    def lines(self) -> list[str]:
        text = self.message if isinstance(self.message, str) else json.dumps(self.message)
        return states.split_lines(text)


@dataclass
class _Heard:
    """What of a job was already said, by when it was said: hosts number nothing."""

    job: str = ""
    timestamp: float = -1.0
    #: How often each piece was heard that bears `timestamp`.
    latest: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Up to here a new connection repeats: this moment, and these pieces of it.
    known_until: float = -1.0
    known: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Lines of the container, which are those that the result repeats.
    container_lines: int = 0

    def reconnect(self) -> None:
        self.known_until, self.known = self.timestamp, self.latest.copy()

    def is_new(self, piece: _Piece) -> bool:
        key = (piece.type, str(piece.message))
        if piece.timestamp < self.known_until:
            return False
        if piece.timestamp == self.known_until and self.known[key] > 0:
            self.known[key] -= 1
            return False
        if piece.timestamp > self.timestamp:
            self.timestamp, self.latest = piece.timestamp, Counter()
        self.latest[key] += 1
        if piece.type == "container":
            self.container_lines += len(piece.lines)
        return True


async def tail(client: Client, node_url: str, deployment: Deployment, count: int) -> list[str]:
    """The last lines of the deployment's current job; none before one runs."""
    job = states.current_job(await client.jobs(deployment.id))
    if job is None or job.state == "QUEUED" or count <= 0:
        return []
    detail = await client.job(deployment.id, job.job)
    if job.state != "RUNNING":
        return states.log_lines(detail.result.operations)[-count:] if detail.result else []
    if detail.node in ("", states.NOBODY):
        return []
    async with _open(client, node_url, deployment.id, job.job, detail.node) as socket:
        return (await _history(socket, _Heard()))[-count:]


async def follow(client: Client, node_url: str, deployment: str, count: int) -> AsyncIterator[str]:
    """The last lines, then each further one, over lost connections and new jobs, until the deployment's jobs have ended."""
    heard, failures = _Heard(), 0
    while True:
        job = states.current_job(await client.jobs(deployment))
        if job and job.job != heard.job:
            heard = _Heard(job.job)
        if job and job.state == "RUNNING":
            try:
                async for line in _live(client, node_url, deployment, job, heard, count):
                    failures = 0
                    yield line
            except OutcomeUnknown:
                failures += 1
                if failures == _MAX_FAILURES:
                    raise
        elif job and job.state not in states.ACTIVE_JOBS:
            for line in await _rest(client, deployment, job, heard, count):
                yield line
            return
        elif job is None and (await client.deployment(deployment)).status in ("STOPPED", "ARCHIVED", "ERROR"):
            return
        await asyncio.sleep(_PAUSE)


async def _live(
    client: Client, node_url: str, deployment: str, job: Job, heard: _Heard, count: int
) -> AsyncIterator[str]:
    """One connection's lines, until it ends. OutcomeUnknown if there is no host, or it doesn't answer."""
    node = (await client.job(deployment, job.job)).node
    if node in ("", states.NOBODY):
        raise OutcomeUnknown("Nosana doesn't tell yet which host runs the job")
    fresh = heard.timestamp < 0
    heard.reconnect()
    async with _open(client, node_url, deployment, job.job, node) as socket:
        lines = await _history(socket, heard)
        for line in (lines[-count:] if count > 0 else []) if fresh else lines:
            yield line
        async for raw in _while_running(socket, client, deployment, job):
            for line in _read(raw, heard):
                yield line


async def _while_running(
    socket: ClientConnection, client: Client, deployment: str, job: Job
) -> AsyncIterator[str | bytes]:
    """Frames until the connection or the job ends. A host may keep the connection of an ended job open: so silence is looked into."""
    while True:
        try:
            yield await asyncio.wait_for(socket.recv(), _SILENCE)
        except TimeoutError:
            current = states.current_job(await client.jobs(deployment))
            if current is None or current.job != job.job or current.state != "RUNNING":
                return
        except ConnectionClosedOK:
            return


async def _rest(client: Client, deployment: str, job: Job, heard: _Heard, count: int) -> list[str]:
    """What an ended job said and we didn't hear."""
    result = (await client.job(deployment, job.job)).result
    lines = states.log_lines(result.operations) if result else []
    if heard.timestamp >= 0:
        return lines[heard.container_lines :]
    return lines[-count:] if count > 0 else []


@asynccontextmanager
async def _open(client: Client, node_url: str, deployment: str, job: str, node: str) -> AsyncIterator[ClientConnection]:
    """A subscription to a job's output at its host; errors come as those of the contract."""
    header = await client.header(deployment)
    header = header if ":" in header else f"{_MESSAGE}:{header}"
    url = node_url.replace("{node}", node).replace("http", "ws", 1).rstrip("/") + "/flog"
    body = {"jobAddress": job, "address": node}
    subscription = {"path": "/flog", "header": header, "headers": {"Authorization": header}, "body": body}
    try:
        async with connect(url, open_timeout=_OPEN, max_size=_MAX_FRAME, ping_interval=30, proxy=None) as socket:
            await socket.send(json.dumps(subscription))
            yield socket
            _check_close(socket.close_code)
    except ConnectionClosed as error:
        _check_close(error.rcvd.code if error.rcvd else None)
        raise OutcomeUnknown(f"host {node} closed the log: {error.rcvd.reason if error.rcvd else 'cut'}") from error
    except (WebSocketException, OSError, TimeoutError) as error:
        raise OutcomeUnknown(f"host {node} doesn't show the log: {type(error).__name__}") from error


def _check_close(code: int | None) -> None:
    if code == _UNAUTHORIZED:
        raise CredentialsRefused("the host doesn't accept the log header that Nosana gave")


async def _history(socket: ClientConnection, heard: _Heard) -> list[str]:
    """What comes at once: all that was said so far."""
    lines: list[str] = []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _HISTORY
    while (left := deadline - loop.time()) > 0:
        try:
            raw = await asyncio.wait_for(socket.recv(), min(_QUIET, left))
        except TimeoutError:
            break
        lines += _read(raw, heard)
    return lines


def _read(raw: str | bytes, heard: _Heard) -> list[str]:
    """The new lines of a frame."""
    try:
        piece = _Piece.model_validate_json(_Frame.model_validate_json(raw).data)
    except ValidationError:
        # The cause would quote the workload's output.
        raise OutcomeUnknown("the host's log frame can't be read") from None
    return piece.lines if heard.is_new(piece) else []
