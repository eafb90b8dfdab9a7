"""`calctl status`: what runs, since when, where it answers, and what it has cost."""

from __future__ import annotations

import time

import httpx

from cal_cli import spending
from cal_cli.errors import Failure
from cal_cli.resources import paged
from cal_cli.rest import Rest
from cal_cli.statedir import Member, StateDir, same_process
from cal_cli.table import duration, table


def status(state: StateDir) -> tuple[str, bool]:
    """(text, whether all of it runs and answers)."""
    known = state.read()
    if known is None or not state.running():
        return f"not running (state directory {state.path})", False
    rows = [_row(member) for member in known.members]
    healthy = known.ready and all(row[2] == "running" for row in rows)
    answers = _answers(known.api_url)
    lines = [
        f"supervisor   pid {known.pid}, {'ready' if known.ready else 'starting'}",
        f"REST api     {known.api_url}   {'answers' if answers else 'does not answer'}",
        f"logs         {known.relay_url}",
        f"kubeconfig   {known.kubeconfig}" + (f"   (context {known.context})" if known.context else ""),
        *([f"cost so far  {_cost(known.api_url)}"] if answers else []),
        f"state        {state.path}",
        "",
        table(["PROCESS", "PID", "STATE", "AGE", "RESTARTS"], rows),
    ]
    return "\n".join(lines), healthy and answers


def _row(member: Member) -> list[str | int]:
    alive = same_process(member) is not None
    age = duration(time.time() - member.started) if alive else "-"
    return [member.name, member.pid, "running" if alive else "down", age, member.restarts]


def _cost(api_url: str) -> str:
    try:
        return spending.summary(paged(Rest(api_url), "/pools", "pools"))
    except Failure as error:  # it ends just now; what runs is told all the same
        return f"unknown: {error}"


def _answers(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/readyz", timeout=3, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
