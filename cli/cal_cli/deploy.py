"""`calctl create pool`, `deploy`, `terminate`, `explain`: the life of a deployment through the REST api."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cal_cli.errors import Failure
from cal_cli.resources import RESOURCES, Scope, one
from cal_cli.rest import Body, Rest, RestError, why
from cal_cli.table import printable_lines, table
from cal_crds.meta import DEPLOYMENT

TERMINAL = ("STOPPED", "FAILED", "TERMINATED")
_POLL = 0.5


def environment(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs of the command line."""
    split = [pair.partition("=") for pair in pairs]
    bad = [name for name, equals, _ in split if not equals or not name]
    if bad:
        raise Failure(f"--env {bad[0]!r}: expected NAME=VALUE")
    return {name: value for name, _, value in split}


def wait_running(rest: Rest, identifier: str, timeout: float, show: Callable[[str], None]) -> Body:
    """Polls until the deployment runs, showing each change of state and of the reason for waiting, with the time.

    Raises `Failure` when it fails, is stopped, or `timeout` seconds pass (it goes on then).
    """
    began, said = time.monotonic(), ""
    while True:
        body = rest.get(f"/status/{identifier}")
        state, reason = str(body.get("state")), why(body)
        line = printable_lines(f"{state}{f': {reason}' if reason else ''}")
        elapsed = time.monotonic() - began
        if line != said:
            said = line
            show(f"{elapsed:6.1f} s  {line}")
        if state == "RUNNING":
            return body
        if state in TERMINAL:
            raise Failure(f"deployment {identifier} is {line}")
        if elapsed > timeout:
            raise Failure(f"deployment {identifier} is still {line} after {timeout:.0f} s; it goes on without us")
        time.sleep(_POLL)


def explain(scope: Scope, wanted: str) -> str:
    """Why a deployment is where it is: what it waits for, which offers were refused and why, its conditions and nodes."""
    item = one(RESOURCES["deployments"], scope, wanted)
    body = scope.rest.get(f"/status/{item['deployment_id']}")
    head = f"deployment {body['deployment_id']} ({body.get('model_name')}) is {body.get('state')}"
    lines = [printable_lines(head + (f": {why(body)}" if why(body) else ""))]
    resource = _resource(scope, str(body["deployment_id"]))
    status = (resource or {}).get("status") or {}
    lines += _waiting_lines(status.get("waiting") or body.get("waiting") or {})
    if status.get("nodes"):
        rows = [[n.get("name"), n.get("state"), n.get("endpoint")] for n in status["nodes"]]
        lines += ["", table(["NODE", "STATE", "ENDPOINT"], rows)]
    if status.get("conditions"):
        rows = [[c["type"], c["status"], c.get("reason"), c.get("message")] for c in status["conditions"]]
        lines += ["", table(["CONDITION", "STATUS", "REASON", "MESSAGE"], rows)]
    if resource is None:
        lines += ["", "(offers, nodes and conditions: give --kubeconfig)"]
    return "\n".join(lines)


def terminate(scope: Scope, identifiers: Sequence[str]) -> Iterator[Body]:
    """Asks for the end of each; the api's answers as they come. What is refused keeps no other one alive: `Failure` in the end."""
    refused = []
    for identifier in identifiers:
        try:
            answer = scope.rest.post("/terminate", {"deployment_id": identifier})
        except RestError as error:
            refused.append(f"deployment {identifier} was not terminated: {error.message}")
        else:
            yield answer
    if refused:
        raise Failure("\n".join(refused))


def of_owner(scope: Scope) -> list[str]:
    """Every deployment of an owner that hasn't ended: of those that `get deployments --owner` lists."""
    found = RESOURCES["deployments"].fetch(scope)
    return [str(item["deployment_id"]) for item in found if item.get("state") not in TERMINAL]


def _resource(scope: Scope, uid: str) -> dict[str, Any] | None:
    if scope.kubeconfig is None:
        return None
    items = scope.kube("explain").items(DEPLOYMENT.path())
    return next((item for item in items if item["metadata"]["uid"] == uid), None)


def _waiting_lines(waiting: Body) -> list[str]:
    if not waiting:
        return []
    lines = [f"waits: {waiting.get('reason')}: {waiting.get('message')}"]
    if waiting.get("until"):
        lines.append(f"until: {waiting['until']}")
    refused = waiting.get("refused") or []
    if refused:
        rows = [[item.get("offer"), item.get("reason"), item.get("message")] for item in refused]
        lines += ["", table(["REFUSED OFFER", "REASON", "MESSAGE"], rows)]
    return lines
