"""The Nosana world's REST operations: one function per operation of the provider's document, on the state of `nosana_state`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worlds.nosana_schemas import job_definition
from worlds.nosana_state import ARCHIVED, STATE_NUMBERS, Account, Deployment, Job, Provider, Refusal, stamp

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Call:
    """One request: who asks, what for. `lag` seconds is how old the view of a reader is."""

    provider: Provider
    account: Account | None
    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    lag: float = 0.0

    @property
    def owner(self) -> str:
        assert self.account
        return self.account.owner

    @property
    def deployment(self) -> Deployment:
        """The deployment that the path names, if it is the asker's."""
        found = self.provider.deployments.get(self.path["deployment"])
        if found is None or found.owner != self.owner or self.provider.seen(found, self.lag) is None:
            raise Refusal(404, "Deployment not found.")
        return found

    @property
    def open_deployment(self) -> Deployment:
        """The same, for calls that an archived one refuses."""
        if self.deployment.status == "ARCHIVED":
            raise Refusal(500, ARCHIVED)
        return self.deployment

    def job(self, address: str) -> Job:
        found = self.provider.jobs.get(address)
        if found is None or self.provider.deployments[found.deployment].owner != self.owner:
            raise Refusal(404, "Job not found")
        return found


# -- public


def markets(call: Call) -> Answer:
    kind = call.query.get("type", "PREMIUM")
    return 200, [market.public() for market in call.provider.markets.values() if market.public()["type"] == kind]


def market(call: Call) -> Answer:
    found = call.provider.market(call.path["id"])
    if found is None:
        raise Refusal(500, "Market not found")
    return 200, found.public()


def required_resources(call: Call) -> Answer:
    market(call)
    return 200, {"required_images": [], "required_remote_resources": []}


# -- the account


def balance(call: Call) -> Answer:
    assert call.account
    return 200, {
        "assignedCredits": call.account.assigned,
        "reservedCredits": 0,
        "settledCredits": round(call.account.settled, 6),
    }


def vaults(call: Call) -> Answer:
    assert call.account
    if call.account.fresh and not any(found.owner == call.owner for found in call.provider.deployments.values()):
        return 200, []
    return 200, [{"vault": call.owner, "owner": call.owner, "created_at": stamp(0)}]


# -- deployments


def create(call: Call) -> Answer:
    body = call.body
    if body is None:
        raise Refusal(400, "Invalid request body.")
    if call.provider.market(str(body["market"]).strip()) is None or body["replicas"] < 1 or body["timeout"] < 1:
        raise Refusal(400, "Invalid request body.")
    if body["strategy"] == "INFINITE" and body["timeout"] < 60:
        raise Refusal(400, "Timeout for infinite deployments must be at least 1 hour.")
    problems = [error.message for error in job_definition().iter_errors(body["job_definition"])]
    ids = [operation["id"] for operation in body["job_definition"]["ops"]]
    if problems or not ids or len(set(ids)) != len(ids):
        raise Refusal(400, "Invalid request body.")
    found = call.provider.market(body["market"].strip())
    assert found
    made = call.provider.create(call.owner, {**body, "market": found.address})
    return 200, call.provider.view(made)


def get(call: Call) -> Answer:
    return 200, call.provider.seen(call.deployment, call.lag)


def delete(call: Call) -> Answer:
    call.provider.delete(call.deployment)
    return 204, None


def start(call: Call) -> Answer:
    call.provider.start(call.deployment)
    return 200, {"status": "STARTING", "updated_at": stamp(call.provider.now)}


def stop(call: Call) -> Answer:
    call.provider.stop(call.deployment)
    return 200, {"status": "STOPPING", "updated_at": stamp(call.provider.now)}


def archive(call: Call) -> Answer:
    call.provider.archive(call.deployment)
    return 200, {"status": "ARCHIVED", "updated_at": stamp(call.provider.now)}


def update_replicas(call: Call) -> Answer:
    if call.body["replicas"] < 0:
        raise Refusal(400, "Invalid request body.")
    call.provider.set_replicas(call.deployment, int(call.body["replicas"]))
    return 200, {"replicas": call.deployment.replicas, "updated_at": stamp(call.provider.now)}


def update_timeout(call: Call) -> Answer:
    found = call.open_deployment
    found.timeout = int(call.body["timeout"])
    call.provider.change(found)
    return 200, {"timeout": found.timeout, "updated_at": stamp(call.provider.now)}


def create_revision(call: Call) -> Answer:
    found = call.open_deployment
    if list(job_definition().iter_errors(call.body)):
        raise Refusal(400, "Invalid request body.")
    found.active_revision = call.provider.add_revision(found, call.body)["revision"]
    call.provider.change(found)
    return 200, {
        "active_revision": found.active_revision,
        "endpoints": call.provider.view(found)["endpoints"],
        "revisions": found.revisions,
        "updated_at": stamp(call.provider.now),
    }


def revisions(call: Call) -> Answer:
    return 200, _page(call, "revisions", call.deployment.revisions, "created_at")


def events(call: Call) -> Answer:
    return 200, _page(call, "events", call.deployment.events, "created_at")


def tasks(call: Call) -> Answer:
    found = call.open_deployment
    return 200, _page(call, "tasks", call.provider.tasks(found.id), "created_at")


def header(call: Call) -> Answer:
    signature = signature_of(call.deployment.owner)
    bare = call.provider.delays.bare_header
    return 200, {"header": signature if bare else f"DEPLOYMENT_HEADER:{signature}"}


def deployments(call: Call) -> Answer:
    query = call.query
    search, name = query.get("search", "").lower(), query.get("name")
    named = [
        found
        for found in call.provider.deployments.values()
        if found.owner == call.owner
        and name in (None, found.name)
        and (not search or search in found.name.lower() or search in found.id.lower())
        and _one_of(found.id, query.get("id"))
    ]
    seen = [view for found in named if (view := call.provider.seen(found, call.lag))]
    kept = [
        view
        for view in seen
        if _one_of(view["status"], query.get("status")) and _one_of(view["strategy"], query.get("strategy"))
    ]
    return 200, _page(call, "deployments", kept, "created_at")


# -- jobs


def deployment_jobs(call: Call) -> Answer:
    found = call.provider.jobs_of(call.deployment.id)
    state, job = call.query.get("state"), call.query.get("job")
    kept = [item.public() for item in found if _one_of(item.state, state) and job in (None, item.address)]
    return 200, _page(call, "jobs", kept, "created_at")


def deployment_job(call: Call) -> Answer:
    deployment, job = call.deployment, call.provider.jobs.get(call.path["job"])
    if job is None or job.deployment != deployment.id:
        raise Refusal(404, "Job not found")
    return 200, {
        "confidential": bool(deployment.body.get("confidential", False)),
        "revision": job.revision,
        "market": job.market,
        "node": job.node,
        "state": STATE_NUMBERS[job.state],
        "jobStatus": None,
        "jobDefinition": deployment.revisions[job.revision - 1]["job_definition"],
        "jobResult": job.result,
        "timeStart": int(job.started),
        "timeEnd": int(job.ended),
        "listedAt": int(job.created),
    }


def stop_job(call: Call) -> Answer:
    job = call.job(call.path["address"])
    delisted = job.state == "QUEUED"
    if job.state in ("QUEUED", "RUNNING"):
        call.provider.end(job, 0, "STOPPED", {"jobStopped": True})
    return 200, {"tx": job.address[::-1], "job": job.address, "delisted": delisted}


def extend_job(call: Call) -> Answer:
    job = call.job(call.path["address"])
    job.timeout += float(call.body.get("seconds") or 0)
    return 200, {
        "tx": job.address[::-1],
        "job": job.address,
        "credits": {"costUSD": 0, "creditsUsed": 0, "reservationId": job.address},
    }


#: "METHOD path" -> (function, whether it needs a key). Every other operation of the document answers 501 here.
CALLS: Final[Mapping[str, tuple[Callable[[Call], Answer], bool]]] = {
    "GET /api/markets/": (markets, False),
    "GET /api/markets/{id}/": (market, False),
    "GET /api/markets/{id}/required-resources": (required_resources, False),
    "GET /api/credits/balance": (balance, True),
    "GET /api/deployments": (deployments, True),
    "GET /api/deployments/vaults": (vaults, True),
    "POST /api/deployments/create": (create, True),
    "GET /api/deployments/{deployment}": (get, True),
    "DELETE /api/deployments/{deployment}": (delete, True),
    "GET /api/deployments/{deployment}/tasks": (tasks, True),
    "GET /api/deployments/{deployment}/header": (header, True),
    "GET /api/deployments/{deployment}/jobs": (deployment_jobs, True),
    "GET /api/deployments/{deployment}/jobs/{job}": (deployment_job, True),
    "GET /api/deployments/{deployment}/revisions": (revisions, True),
    "GET /api/deployments/{deployment}/events": (events, True),
    "POST /api/deployments/{deployment}/create-revision": (create_revision, True),
    "POST /api/deployments/{deployment}/start": (start, True),
    "POST /api/deployments/{deployment}/stop": (stop, True),
    "POST /api/deployments/{deployment}/archive": (archive, True),
    "PATCH /api/deployments/{deployment}/update-replica-count": (update_replicas, True),
    "PATCH /api/deployments/{deployment}/update-timeout": (update_timeout, True),
    "POST /api/jobs/{address}/stop": (stop_job, True),
    "POST /api/jobs/{address}/extend": (extend_job, True),
}


def signature_of(owner: str) -> str:
    """The signature that hosts want to see of an account."""
    return f"signature{owner}"


def _one_of(value: str, wanted: str | None) -> bool:
    return wanted is None or value in wanted.split(",")


def _page(call: Call, name: str, items: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """A page by cursor, as the provider gives it: the cursor is the last item's place, not a number of items to skip."""
    query = call.query
    limit, descending = int(query.get("limit", 10)), query.get("sort_order", "desc") == "desc"
    placed = [([item[key], number], item) for number, item in enumerate(items)]
    placed.sort(key=lambda pair: pair[0], reverse=descending)
    if "cursor" in query:
        after = _decode(query["cursor"])
        placed = [pair for pair in placed if (pair[0] < after if descending else pair[0] > after)]
    shown, more = placed[:limit], len(placed) > limit
    cursor = base64.b64encode(json.dumps(shown[-1][0]).encode()).decode() if more else None
    return {
        name: [item for _, item in shown],
        "pagination": {"cursor_next": cursor, "cursor_prev": query.get("cursor"), "total_items": len(items)},
    }


def _decode(cursor: str) -> list[Any]:
    try:
        place = json.loads(base64.b64decode(cursor, validate=True))
    except ValueError as error:
        raise Refusal(500, "Internal Server Error") from error
    if not (isinstance(place, list) and len(place) == 2 and isinstance(place[0], str) and isinstance(place[1], int)):
        raise Refusal(500, "Internal Server Error")
    return place
