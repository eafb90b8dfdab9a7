"""`calctl logs`: the last lines through the api; with -f all further ones through the relay's WebSocket."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from cal_cli.errors import Failure, say
from cal_cli.rest import Body, Rest

_WAIT = 1.0


def tail(rest: Rest, identifier: str, lines: int) -> list[str]:
    return [str(line) for line in rest.get(f"/logs/{identifier}", tail=lines).get("logs") or []]


def follow(rest: Rest, identifier: str, lines: int | None) -> Iterator[str]:
    """History first (the last `lines` of it, if given), then every line as it comes, until the log ends.

    A deployment that has no node yet is waited for.
    """
    info = _streamable(rest, identifier)
    url = str(info["ws_url"])
    if url.startswith("/"):
        url = rest.base.replace("http", "ws", 1) + url
    subscription = dict(info["subscription"])
    if lines is not None:
        subscription["tail"] = lines
    try:
        with connect(url, max_size=None, proxy=None) as socket:
            socket.send(json.dumps(subscription))
            for frame in socket:
                yield from _lines(frame)
    except (WebSocketException, OSError) as error:
        raise Failure(f"the log stream {url} broke: {error}") from error


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
