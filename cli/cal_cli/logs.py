"""`calctl logs`: the last lines through the api; with -f all further ones through the relay's WebSocket."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from cal_cli.errors import Failure, say
from cal_cli.rest import Body, Rest

_WAIT = 1.0
_BUFFER = 1000
#: States of nodes whose logs go on no more.
_ENDED = ("terminated", "failed")


def tail(rest: Rest, identifier: str, lines: int) -> list[str]:
    return [str(line) for line in rest.get(f"/logs/{identifier}", tail=lines).get("logs") or []]


def follow(rest: Rest, identifier: str, lines: int | None) -> Iterator[str]:
    """History first (the last `lines` of it, if given), then every line as it comes, until the log ends.

    A deployment that has no node yet is waited for. Of several replicas each is followed, and every line says whose it is.
    """
    info = _streamable(rest, identifier)
    url = str(info["ws_url"])
    if url.startswith("/"):
        url = rest.base.replace("http", "ws", 1) + url
    subscription = dict(info["subscription"])
    if lines is not None:
        subscription["tail"] = lines
    nodes = _running(rest, identifier, str(info["provider"]))
    if len(nodes) < 2:
        yield from _stream(url, subscription)
        return
    say(f"following {len(nodes)} replicas; one that comes later is not followed")
    yield from _merged(url, {name: {**subscription, "jobId": job} for name, job in nodes.items()})


def _running(rest: Rest, identifier: str, provider: str) -> dict[str, str]:
    """Name -> what the relay calls it, of every replica that has an instance and hasn't ended."""
    nodes = rest.get(f"/inventory/nodes/{provider}").get("nodes") or []
    own = [node for node in nodes if node.get("deployment_id") == identifier and node.get("provider_instance_id")]
    return {str(node["hostname"]): str(node["id"]) for node in own if node.get("state") not in _ENDED}


def _stream(url: str, subscription: Body) -> Iterator[str]:
    """One log to its end."""
    try:
        with connect(url, max_size=None, proxy=None) as socket:
            socket.send(json.dumps(subscription))
            for frame in socket:
                yield from _lines(frame)
    except (WebSocketException, OSError) as error:
        raise Failure(f"the log stream {url} broke: {error}") from error


def _merged(url: str, subscriptions: dict[str, Body]) -> Iterator[str]:
    """Several logs, line by line as they come. One that breaks doesn't end the others; `Failure` if none is left by that."""
    arrived: queue.Queue[str | Failure | None] = queue.Queue(_BUFFER)

    def read(name: str, subscription: Body) -> None:
        try:
            for line in _stream(url, subscription):
                arrived.put(f"[{name}] {line}")
        except Failure as failure:
            arrived.put(Failure(f"[{name}] {failure.message}"))
        else:
            arrived.put(None)

    for name, subscription in subscriptions.items():
        threading.Thread(target=read, args=(name, subscription), daemon=True).start()
    left, ended = len(subscriptions), 0
    while left:
        item = arrived.get()
        if isinstance(item, str):
            yield item
            continue
        left, ended = left - 1, ended + (item is None)
        if item is not None and (left or ended):
            say(item.message)
        elif item is not None:
            raise item


def _streamable(rest: Rest, identifier: str) -> Body:
    said = ""
    while True:
        info = rest.get(f"/logs/{identifier}/stream")
        subscription = info.get("subscription") or {}
        if info.get("ws_url") and subscription.get("jobId"):
            return info
        if info.get("supported") is False:
            raise Failure(str(info.get("message") or "this provider can't stream logs; try without -f"))
        state = str(rest.get(f"/status/{identifier}").get("state"))
        if state in ("FAILED", "STOPPED", "TERMINATED"):
            raise Failure(f"the deployment is {state}; its last lines: `calctl logs {identifier}`")
        if state != said:
            said = state
            say(f"waiting for a node; the deployment is {state}")
        time.sleep(_WAIT)


def _lines(frame: str | bytes) -> Iterator[str]:
    try:
        body = json.loads(frame)
        kind = body.get("type")
    except (ValueError, AttributeError):
        return
    if kind == "log":
        data = body.get("data")
        yield data if isinstance(data, str) else json.dumps(data)
    elif kind in ("error", "end") and body.get("message"):
        say(str(body["message"]))
