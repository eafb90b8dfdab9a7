"""What the Nosana world knows and how it changes: accounts, markets, deployments, jobs and the provider's own tasks, on a clock of its own.

It follows the provider's deployment manager: which status allows which call, that a start only schedules a listing, that a stop is a task
too, that a job's end stops its deployment, that SIMPLE-EXTEND jobs are extended before they time out.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
NOBODY: Final = "1" * 32
WRONG_STATE: Final = "Deployment is in the incorrect state."
ARCHIVED: Final = "Cannot modify an archived deployment."
ACTIVE: Final = ("QUEUED", "RUNNING")
STATE_NUMBERS: Final = {"QUEUED": 0, "RUNNING": 1, "COMPLETED": 2, "STOPPED": 3}


class Refusal(Exception):
    """The provider says no: status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass
class Delays:
    """Seconds that the provider's own steps take."""

    start: float = 0.1
    list: float = 0.1
    claim: float = 0.1
    stop: float = 0.1
    #: A listing that has begun isn't called off by a stop.
    stragglers: bool = False
    #: Hosts keep the log open after the job's end.
    hosts_linger: bool = False
    #: The log header comes without its message.
    bare_header: bool = False


@dataclass
class Account:
    """Who pays, and the keys that open it."""

    owner: str
    keys: set[str]
    assigned: float = 1000.0
    settled: float = 0.0
    #: It never had a deployment before: its vault is made with the first.
    fresh: bool = False


@dataclass
class Market:
    """A kind of machine at one price."""

    address: str
    slug: str
    gpu: str
    price: float
    vram: float
    fee: float = 10.0
    #: Machines that can take a job; None: as many as wanted.
    machines: int | None = None

    def public(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "slug": self.slug,
            "name": self.gpu.removeprefix("NVIDIA GeForce "),
            "sft": self.address,
            "type": "PREMIUM",
            "usd_reward_per_hour": self.price,
            "nos_reward_per_second": 0.0001,
            "nos_job_price_per_second": 0.00011,
            "network_fee_percentage": self.fee,
            "premium_community_relation": None,
            "gpu_types": [self.gpu],
            "required_images": [],
            "required_remote_resources": [],
            "client": True,
            "lowest_vram": self.vram,
        }


@dataclass
class Job:
    """One run on one host."""

    address: str
    deployment: str
    market: str
    revision: int
    created: float
    updated: float
    timeout: float
    price: float
    state: str = "QUEUED"
    node: str = NOBODY
    started: float = 0.0
    ended: float = 0.0
    result: dict[str, Any] | None = None
    #: What it said: {opId, group, type, timestamp, message} as hosts send it.
    pieces: list[dict[str, Any]] = field(default_factory=list)

    def public(self) -> dict[str, Any]:
        return {
            "tx": self.address[::-1],
            "job": self.address,
            "deployment": self.deployment,
            "market": self.market,
            "revision": self.revision,
            "state": self.state,
            "time_start": int(self.started),
            "created_at": stamp(self.created),
            "updated_at": stamp(self.updated),
        }


@dataclass
class Deployment:
    """What is started and stopped."""

    id: str
    owner: str
    body: dict[str, Any]
    created: float
    updated: float
    status: str = "DRAFT"
    replicas: int = 1
    timeout: int = 60
    revisions: list[dict[str, Any]] = field(default_factory=list)
    active_revision: int = 1
    events: list[dict[str, Any]] = field(default_factory=list)
    #: (when, what it looked like): what stale reads see.
    history: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.body["name"])

    @property
    def definition(self) -> dict[str, Any]:
        found: dict[str, Any] = self.revisions[self.active_revision - 1]["job_definition"]
        return found


def stamp(moment: float) -> str:
    """As the provider writes times."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Provider:
    """The whole of the world's state. Not thread-safe: it belongs to the server's event loop."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._offset = 0.0
        self.now = time.time()
        self.delays = Delays()
        #: Where the workloads' endpoints are; the server sets it.
        self.url = "http://127.0.0.1:1"
        self.accounts: list[Account] = []
        self.markets: dict[str, Market] = {}
        self.deployments: dict[str, Deployment] = {}
        self.jobs: dict[str, Job] = {}
        self._jobs_of: dict[str, list[Job]] = {}
        #: Instances ended so far: {name, deployment, job, owner, seconds, usd}.
        self.bills: list[dict[str, Any]] = []
        #: Called with a job when it said something or changed.
        self.on_job: Callable[[Job], None] = lambda job: None
        self._tasks: list[tuple[float, int, str, str, Callable[[], None]]] = []
        self._count = itertools.count()

    # -- time

    def tick(self) -> None:
        """Everything that was due up to now happens, in order."""
        self.now = time.time() + self._offset
        while self._tasks and self._tasks[0][0] <= self.now:
            *_, act = heapq.heappop(self._tasks)
            act()

    def advance(self, seconds: float) -> None:
        """Time passes, at once; what falls due on the way happens at its own moment."""
        end = time.time() + self._offset + seconds
        while self._tasks and self._tasks[0][0] <= end:
            due, *_, act = heapq.heappop(self._tasks)
            self.now = max(self.now, due)
            act()
        self._offset += seconds
        self.tick()

    def later(self, seconds: float, kind: str, deployment: str, act: Callable[[], None]) -> None:
        heapq.heappush(self._tasks, (self.now + seconds, next(self._count), kind, deployment, act))

    def drop(self, deployment: str, *kinds: str) -> None:
        self._tasks = [task for task in self._tasks if not (task[3] == deployment and task[2] in kinds)]
        heapq.heapify(self._tasks)

    def tasks(self, deployment: str) -> list[dict[str, Any]]:
        found = [task for task in self._tasks if task[3] == deployment and task[2] in ("LIST", "EXTEND", "STOP")]
        return [
            {"task": kind, "deploymentId": deployment, "due_at": stamp(due), "created_at": stamp(due)}
            for due, _, kind, *_ in found
        ]

    def pending(self, deployment: str, kind: str) -> bool:
        return any(task[2] == kind and task[3] == deployment for task in self._tasks)

    # -- identities

    def address(self) -> str:
        return "".join(self._random.choices(ALPHABET, k=44))

    def add_account(self, key: str, owner: str | None = None, assigned: float = 1000.0) -> Account:
        """The account of `owner`, opened by `key` from now on."""
        for account in self.accounts:
            if account.owner == owner:
                account.keys.add(key)
                return account
        account = Account(owner or self.address(), {key}, assigned)
        self.accounts.append(account)
        return account

    def account_of(self, key: str) -> Account | None:
        return next((account for account in self.accounts if key in account.keys), None)

    def add_market(self, slug: str, gpu: str, price: float, vram: float, machines: int | None = None) -> Market:
        market = Market(self.address(), slug, gpu, price, vram, machines=machines)
        self.markets[market.address] = market
        return market

    def market(self, name: str) -> Market | None:
        return next((market for market in self.markets.values() if name in (market.address, market.slug)), None)

    # -- what is seen

    def view(self, deployment: Deployment) -> dict[str, Any]:
        running = [job for job in self.jobs_of(deployment.id) if job.state == "RUNNING"]
        body = deployment.body
        extra: dict[str, Any] = {name: body[name] for name in ("schedule", "rotation_time") if name in body}
        if body["strategy"] == "INFINITE":
            extra.setdefault("rotation_time", 20)
        return {
            "id": deployment.id,
            "name": deployment.name,
            "vault": deployment.owner,
            "market": body["market"],
            "owner": deployment.owner,
            "status": deployment.status,
            "replicas": deployment.replicas,
            "timeout": deployment.timeout,
            "endpoints": self._endpoints(deployment),
            "confidential": bool(body.get("confidential", False)),
            "active_revision": deployment.active_revision,
            "active_jobs": len(running),
            "created_at": stamp(deployment.created),
            "updated_at": stamp(deployment.updated),
            "strategy": body["strategy"],
            **extra,
        }

    def seen(self, deployment: Deployment, lag: float) -> dict[str, Any] | None:
        """What a reader sees who lags behind; None: nothing yet."""
        if lag <= 0:
            return self.view(deployment)
        past = [look for moment, look in deployment.history if moment <= self.now - lag]
        return past[-1] if past else None

    def _endpoints(self, deployment: Deployment) -> list[dict[str, Any]]:
        found = []
        for operation in deployment.definition["ops"]:
            expose = operation["args"].get("expose") or []
            for service in expose if isinstance(expose, list) else [expose]:
                port = service.get("port") if isinstance(service, dict) else service
                if port is not None:
                    url = f"{self.url}/service/{deployment.id}"
                    found.append({"opId": operation["id"], "port": port, "url": url})
        return found

    def jobs_of(self, deployment: str) -> list[Job]:
        return self._jobs_of.get(deployment, [])

    def active(self, deployment: str) -> list[Job]:
        return [job for job in self.jobs_of(deployment) if job.state in ACTIVE]

    def billing(self) -> list[dict[str, Any]]:
        """Every deployment that costs money or will by itself, with its jobs that do."""
        found = []
        for deployment in self.deployments.values():
            jobs = self.active(deployment.id)
            coming = deployment.status in ("STARTING", "INSUFFICIENT_FUNDS") or self.pending(deployment.id, "LIST")
            if jobs or (coming and deployment.replicas > 0):
                names = {"name": deployment.name, "deployment": deployment.id, "owner": deployment.owner}
                found.append({**names, "status": deployment.status, "jobs": [job.address for job in jobs]})
        return found

    # -- changes

    def change(self, deployment: Deployment, status: str | None = None, touch: bool = True) -> None:
        """A new status; `touch` sets updated_at, which the provider's own steps don't."""
        if status:
            deployment.status = status
        if touch:
            deployment.updated = self.now
        deployment.history.append((self.now, self.view(deployment)))

    def tell(self, deployment: Deployment, kind: str, message: str) -> None:
        deployment.events.append(
            {
                "category": "Deployment",
                "deploymentId": deployment.id,
                "type": kind,
                "message": message,
                "created_at": stamp(self.now),
            }
        )

    def create(self, owner: str, body: dict[str, Any]) -> Deployment:
        made = Deployment(self.address(), owner, body, self.now, self.now)
        made.replicas, made.timeout = int(body["replicas"]), int(body["timeout"])
        self.add_revision(made, body["job_definition"])
        self.deployments[made.id] = made
        self.change(made)
        return made

    def add_revision(self, deployment: Deployment, definition: dict[str, Any]) -> dict[str, Any]:
        revision = {
            "revision": len(deployment.revisions) + 1,
            "deployment": deployment.id,
            "ipfs_definition_hash": "Qm" + self.address(),
            "job_definition": {**definition, "deployment_id": deployment.id},
            "created_at": stamp(self.now),
        }
        deployment.revisions.append(revision)
        return revision

    def start(self, deployment: Deployment) -> None:
        if deployment.status not in ("DRAFT", "STOPPED", "ERROR", "INSUFFICIENT_FUNDS"):
            raise Refusal(500, WRONG_STATE)
        self.change(deployment, "STARTING")
        self.later(self.delays.start, "SCHEDULE", deployment.id, lambda: self._schedule(deployment))

    def _schedule(self, deployment: Deployment) -> None:
        if deployment.status == "STARTING":
            self.change(deployment, "RUNNING", touch=False)
            self.tell(deployment, "DEPLOYMENT_STARTED", "Deployment started")
            # A listing works with the replica count that it finds when it begins.
            wanted = deployment.replicas
            self.later(self.delays.list, "LIST", deployment.id, lambda: self._list(deployment, wanted))

    def _list(self, deployment: Deployment, wanted: int) -> None:
        account = next(account for account in self.accounts if account.owner == deployment.owner)
        for _ in range(wanted - len(self.active(deployment.id))):
            market = self.markets[deployment.body["market"]]
            if account.assigned - account.settled < market.price * deployment.timeout / 60:
                self._out_of_funds(deployment, wanted)
                return
            job = Job(
                self.address(),
                deployment.id,
                market.address,
                deployment.active_revision,
                self.now,
                self.now,
                deployment.timeout * 60,
                market.price * (1 + market.fee / 100),
            )
            self.jobs[job.address] = job
            self._jobs_of.setdefault(deployment.id, []).append(job)
            self.tell(deployment, "JOB_LIST_CONFIRMED", f"Successfully listed job - {job.address}")
            self.later(self.delays.claim, "CLAIM", deployment.id, lambda job=job: self._claim(deployment, job))  # type: ignore[misc]
        if deployment.status == "INSUFFICIENT_FUNDS":
            self.change(deployment, "RUNNING", touch=False)

    def list_again(self, deployment: Deployment) -> None:
        """Lists one job more than there are."""
        self._list(deployment, len(self.active(deployment.id)) + 1)

    def _out_of_funds(self, deployment: Deployment, wanted: int) -> None:
        self.tell(deployment, "JOB_LIST_ERROR", "Insufficient credits. Available: $0.000")
        if deployment.status == "RUNNING":
            self.change(deployment, "INSUFFICIENT_FUNDS", touch=False)
        self.later(600, "LIST", deployment.id, lambda: self._list(deployment, wanted))

    def _claim(self, deployment: Deployment, job: Job) -> None:
        if job.state != "QUEUED":
            return
        market = self.markets[job.market]
        busy = sum(1 for other in self.jobs.values() if other.market == job.market and other.state == "RUNNING")
        if market.machines is not None and busy >= market.machines:
            self.later(1, "CLAIM", deployment.id, lambda: self._claim(deployment, job))
            return
        job.state, job.node, job.started, job.updated = "RUNNING", self.address(), self.now, self.now
        self.say(job, "Pulling image", kind="info")
        self._plan_end(deployment, job)
        self.change(deployment, touch=False)

    def _plan_end(self, deployment: Deployment, job: Job) -> None:
        minutes = deployment.timeout
        if deployment.body["strategy"] == "SIMPLE-EXTEND":
            buffer = min(max(minutes * 6, 60), 300)
            self.later(minutes * 60 - buffer, "EXTEND", deployment.id, lambda: self._extend(deployment, job))
        self.later(job.started + job.timeout - self.now, "EXPIRE", deployment.id, lambda: self._expire(deployment, job))

    def _extend(self, deployment: Deployment, job: Job) -> None:
        if job.state != "RUNNING":
            return
        job.timeout += deployment.timeout * 60
        self.tell(deployment, "JOB_EXTEND_SUCCESSFUL", "Successfully extended job")
        self.later(deployment.timeout * 60, "EXTEND", deployment.id, lambda: self._extend(deployment, job))

    def _expire(self, deployment: Deployment, job: Job) -> None:
        if job.state != "RUNNING":
            return
        if job.started + job.timeout > self.now:
            left = job.started + job.timeout - self.now
            self.later(left, "EXPIRE", deployment.id, lambda: self._expire(deployment, job))
        else:
            self.end(job, 0, "COMPLETED", {"jobExpired": True})

    def stop(self, deployment: Deployment) -> None:
        if deployment.status == "ARCHIVED":
            raise Refusal(500, ARCHIVED)
        if deployment.status not in ("RUNNING", "ERROR", "INSUFFICIENT_FUNDS"):
            raise Refusal(500, WRONG_STATE)
        self.change(deployment, "STOPPING")
        self.later(self.delays.stop, "STOP", deployment.id, lambda: self._stop(deployment))

    def _stop(self, deployment: Deployment) -> None:
        self.drop(deployment.id, "EXTEND", "SCHEDULE", *(() if self.delays.stragglers else ("LIST",)))
        for job in self.active(deployment.id):
            self.end(job, 0, "STOPPED", {"jobStopped": True})
        if deployment.status == "STOPPING" and not self.active(deployment.id):
            self.change(deployment, "STOPPED", touch=False)

    def archive(self, deployment: Deployment) -> None:
        if deployment.status == "ARCHIVED":
            raise Refusal(500, ARCHIVED)
        if deployment.status != "STOPPED":
            raise Refusal(500, WRONG_STATE)
        self.change(deployment, "ARCHIVED")

    def delete(self, deployment: Deployment) -> None:
        if deployment.status != "STOPPED":
            raise Refusal(500, WRONG_STATE)
        self.forget(deployment)

    def forget(self, deployment: Deployment) -> None:
        """It is as if it had never been; what it owes is billed."""
        for job in self.jobs_of(deployment.id):
            if job.state == "RUNNING":
                job.ended = self.now
                self._bill(deployment, job)
            del self.jobs[job.address]
        self._jobs_of.pop(deployment.id, None)
        del self.deployments[deployment.id]

    def set_replicas(self, deployment: Deployment, replicas: int) -> None:
        if deployment.status == "ARCHIVED":
            raise Refusal(500, ARCHIVED)
        deployment.replicas = replicas
        self.change(deployment)
        if deployment.status != "RUNNING":
            return
        active = self.active(deployment.id)
        for job in active[replicas:]:
            self.end(job, 0, "STOPPED", {"jobStopped": True})
        if len(active) < replicas:
            self.later(self.delays.list, "LIST", deployment.id, lambda: self._list(deployment, replicas))

    # -- jobs

    def say(self, job: Job, text: str, kind: str = "container") -> None:
        moment = int(self.now * 1000)
        job.pieces.append({"opId": "main", "group": "main", "type": kind, "timestamp": moment, "message": text})
        self.on_job(job)

    def end(self, job: Job, exit_code: int, state: str = "COMPLETED", reason: dict[str, Any] | None = None) -> None:
        """The job is over: it leaves a result and its bill, and its deployment stops."""
        ran = job.state == "RUNNING"
        job.state, job.ended, job.updated = state, self.now, self.now
        deployment = self.deployments[job.deployment]
        if ran:
            job.result = _result(job, exit_code, reason or {})
            self._bill(deployment, job)
        self.on_job(job)
        if not self.active(deployment.id) and deployment.status not in ("ERROR", "INSUFFICIENT_FUNDS", "ARCHIVED"):
            self.change(deployment, "STOPPED", touch=False)

    def _bill(self, deployment: Deployment, job: Job) -> None:
        seconds = job.ended - job.started
        usd = seconds * job.price / 3600
        names = {"name": deployment.name, "deployment": deployment.id, "job": job.address, "owner": deployment.owner}
        self.bills.append({**names, "seconds": seconds, "usd": usd})
        account = next(account for account in self.accounts if account.owner == deployment.owner)
        account.settled += usd


def _result(job: Job, exit_code: int, reason: dict[str, Any]) -> dict[str, Any]:
    """JobResults as the provider gives them."""
    failed = exit_code != 0
    stopped = bool(reason)
    logs = [
        {"type": "stdout", "log": piece["message"], "timestamp": stamp(piece["timestamp"] / 1000)}
        for piece in job.pieces
        if piece["type"] == "container"
    ]
    operation = {
        "providerId": "container",
        "operationId": "main",
        "group": "main",
        "status": "stopped" if stopped else "failed" if failed else "finished",
        "startTime": int(job.started * 1000),
        "endTime": int(job.ended * 1000),
        "exitCode": exit_code,
        "logs": logs,
        "diagnostics": {"reason": {"hostShutDown": False, "jobStopped": False, "jobExpired": False, **reason}},
    }
    return {
        "status": "stopped" if stopped else "failed" if failed else "success",
        "startTime": int(job.started * 1000),
        "endTime": int(job.ended * 1000),
        "opStates": [operation],
    }
