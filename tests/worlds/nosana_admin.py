"""The Nosana world's /_world/ routes: what tests and the chaos harness, in other processes, ask of it and do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from worlds.nosana_faults import Fault
from worlds.nosana_state import Deployment, Job

if TYPE_CHECKING:
    from worlds.nosana import Nosana


def admin_routes(world: Nosana) -> list[Route]:
    """All of them. Each answers 200 with JSON; a wrong request is the test's own fault and fails with 500."""
    admin = _Admin(world)
    posts = ("advance", "delays", "account", "revoke", "market", "job", "deployment", "crowd", "hosts")
    gets = ("billing", "bills", "deployments", "violations", "stats")
    return [
        *(Route(f"/_world/{name}", _route(getattr(admin, name)), methods=["GET"]) for name in gets),
        *(Route(f"/_world/{name}", _route(getattr(admin, name)), methods=["POST"]) for name in posts),
        Route("/_world/faults", _route(admin.faults), methods=["POST"]),
        Route("/_world/faults", _route(admin.clear_faults), methods=["DELETE"]),
    ]


def _route(act: Callable[[Any], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(act(await request.json() if await request.body() else None))

    return endpoint


class _Admin:
    def __init__(self, world: Nosana) -> None:
        self._world, self._provider = world, world.provider

    # -- asked

    def billing(self, _: Any) -> Any:
        self._provider.tick()
        return self._provider.billing()

    def bills(self, _: Any) -> Any:
        return self._provider.bills

    def deployments(self, _: Any) -> Any:
        self._provider.tick()
        found = self._provider.deployments.values()
        return [
            {
                **self._provider.view(item),
                "body": item.body,
                "jobs": [job.public() for job in self._provider.jobs_of(item.id)],
            }
            for item in found
        ]

    def violations(self, _: Any) -> Any:
        return self._world.violations

    def stats(self, _: Any) -> Any:
        owners = [account.owner for account in self._provider.accounts]
        return {
            "owners": owners,
            "requests": self._world.requests,
            "faults": self._world.plan.shown,
            "now": self._provider.now,
        }

    # -- done

    def advance(self, body: Any) -> Any:
        self._provider.advance(float(body["seconds"]))
        return {}

    def delays(self, body: Any) -> Any:
        for name, value in body.items():
            if not hasattr(self._provider.delays, name):
                raise KeyError(name)
            setattr(self._provider.delays, name, value)
        return {}

    def faults(self, body: Any) -> Any:
        for fault in body:
            self._world.plan.add(Fault(**fault))
        return {}

    def clear_faults(self, _: Any) -> Any:
        self._world.plan.clear()
        return {}

    def account(self, body: Any) -> Any:
        """A key for an account; `owner` of an existing one adds the key to it."""
        account = self._provider.add_account(body["key"], body.get("owner"))
        account.assigned = body.get("assigned", account.assigned)
        account.fresh = body.get("fresh", account.fresh)
        return {"owner": account.owner}

    def revoke(self, body: Any) -> Any:
        for account in self._provider.accounts:
            account.keys.discard(body["key"])
        return {}

    def market(self, body: Any) -> Any:
        market = self._provider.market(body["slug"])
        assert market
        market.price = body.get("usd_reward_per_hour", market.price)
        market.machines = body.get("machines", market.machines)
        return market.public()

    def job(self, body: Any) -> Any:
        """Something happens to the running job of a deployment."""
        self._provider.tick()
        job = self._running(self._find(body))
        match body["do"]:
            case "say":
                for _ in range(int(body.get("times", 1))):
                    self._provider.say(job, body["line"])
            case "end":
                self._provider.end(job, int(body.get("exit_code", 0)))
            case "lose":
                self._provider.end(job, 0, "COMPLETED", {"hostShutDown": True})
            case "expire":
                self._provider.end(job, 0, "COMPLETED", {"jobExpired": True})
            case "vanish":
                # The host is gone and nobody tells what became of the job.
                self._provider.end(job, 0)
                job.result = None
        return {"job": job.address}

    def deployment(self, body: Any) -> Any:
        """Somebody (the provider, or a person at its dashboard) changes a deployment."""
        found = self._find(body)
        if "status" in body:
            self._provider.change(found, body["status"], touch=False)
        if body.get("relist"):
            # The host gives its job up; the provider lists another for the same deployment.
            job = self._running(found)
            self._provider.list_again(found)
            self._provider.end(job, 0, "STOPPED", {"hostShutDown": True})
        if body.get("delete"):
            self._provider.forget(found)
        return {"id": found.id}

    def hosts(self, body: Any) -> Any:
        """Every host: `drop` breaks off its log connections, `down` answers none from now on, `frame` is sent in place of a log."""
        self._world.hosts_down = body.get("down", self._world.hosts_down)
        self._world.odd_frame = body.get("frame", self._world.odd_frame)
        if body.get("drop"):
            self._world.drop_listeners()
        return {}

    def crowd(self, body: Any) -> Any:
        """Many deployments at once in the first market, of the account of `key`: started, or `age` seconds old."""
        account = self._provider.account_of(body["key"])
        assert account
        market = next(iter(self._provider.markets.values()))
        operation = {"type": "container/run", "id": "main", "args": {"image": "busybox"}}
        definition = {"version": "0.1", "type": "container", "ops": [operation]}
        for name in body["names"]:
            parts = {"name": name, "market": market.address, "replicas": 1, "timeout": 60, "strategy": "SIMPLE-EXTEND"}
            made = self._provider.create(account.owner, {**parts, "job_definition": definition})
            made.created -= float(body.get("age", 0))
            if body.get("started", True):
                self._provider.start(made)
        return {}

    def _find(self, body: Any) -> Deployment:
        wanted = body.get("deployment"), body.get("name")
        return next(
            found for found in self._provider.deployments.values() if found.id == wanted[0] or found.name == wanted[1]
        )

    def _running(self, deployment: Deployment) -> Job:
        return next(job for job in self._provider.active(deployment.id) if job.state == "RUNNING")
