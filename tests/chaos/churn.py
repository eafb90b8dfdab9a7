"""Users: deploy, scale, change, terminate, start and delete, by REST and by kubectl's way, seeded. What was acknowledged is remembered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
from chaos.stage import AKASH, DEMO, NOSANA

from cal_crds.cluster import Cluster, ClusterError, NotFound
from cal_crds.meta import API_VERSION, DEPLOYMENT, LABEL_PROVIDER, NODE, POOL, Kind

NAMESPACE: Final = "default"
PROVIDERS: Final = (DEMO, NOSANA, AKASH)
#: Deployments that users keep at once with one provider, and nodes at which they hold back.
_DEPLOYMENTS: Final = 6
_NODES: Final = 70
_POOL_SPEC: Final[dict[str, dict[str, Any]]] = {
    DEMO: {"gpuCount": 1},
    NOSANA: {"gpuCount": 1, "providerPoolID": "nvidia-3090"},
    AKASH: {"gpuCount": 1, "allowedGPUTypes": ["rtx4090"]},
}


@dataclass
class Thing:
    """A pool or a deployment that a user made. `doomed`: somebody asked for its end, whatever came of that."""

    uid: str
    name: str
    provider: str
    pool: str = ""
    doomed: bool = False


@dataclass
class Churn:
    """The users. `plan` is what they did, for people; `answers` the status codes that they got."""

    cluster: Cluster
    api: httpx.AsyncClient
    seed: int
    plan: list[str] = field(default_factory=list)
    pools: dict[str, Thing] = field(default_factory=dict)
    deployments: dict[str, Thing] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    #: Set at each deployment and start: who wants to strike just then waits for it.
    bought: asyncio.Event = field(default_factory=asyncio.Event)
    crowded: bool = False

    def __post_init__(self) -> None:
        self._dice = random.Random(f"{self.seed} churn")
        self._numbers = 0
        self._acts: list[tuple[int, Callable[[], Awaitable[str]]]] = [
            (6, self._deploy_by_rest), (6, self._deploy_by_kubectl), (5, self._scale), (3, self._terminate), (4, self._start),
            (3, self._delete), (2, self._delete_by_rest), (6, self._delete_node), (3, self._change), (1, self._replace_pool),
            (2, self._read_logs),
        ]  # fmt: skip

    async def open(self) -> None:
        """The first pools, one each by REST and by kubectl."""
        for provider in PROVIDERS:
            await self._pool_by_rest(provider)
            await self._pool_by_kubectl(provider)

    async def run(self) -> None:
        """Until cancelled. Acts overlap: one that hangs holds up nobody."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._dice.uniform(0.1, 0.45))
                weights, acts = zip(*self._acts, strict=True)
                group.create_task(self._try(self._dice.choices(acts, weights)[0]))

    async def _try(self, act: Callable[[], Awaitable[str]]) -> None:
        try:
            async with asyncio.timeout(8):
                said = await act()
        except TimeoutError:
            said = f"{_name(act)}: no answer"
        except httpx.HTTPError as error:
            said = f"{_name(act)}: {type(error).__name__}"
        except ClusterError as error:
            said = f"{_name(act)}: {error.status} {error.message[:80]}"
        if said:
            self.note(said)

    def note(self, what: str) -> None:
        """One line of the plan."""
        self.plan.append(f"{time.strftime('%H:%M:%S')} {what}")

    # --- helpers -------------------------------------------------------------------------------------------------------------

    def _next(self, letter: str) -> str:
        self._numbers += 1
        return f"{letter}{self._numbers}"

    def _pick(self, things: dict[str, Thing], provider: str | None = None) -> Thing | None:
        fit = [thing for thing in things.values() if not thing.doomed and provider in (None, thing.provider)]
        return self._dice.choice(fit) if fit else None

    async def _rest(self, method: str, path: str, body: Any = None) -> httpx.Response:
        answer = await self.api.request(method, path, json=body)
        self.answers[f"{method} {path.split('/')[1].split('?')[0]} {answer.status_code}"] += 1
        return answer

    async def _make(self, kind: Kind, name: str, spec: dict[str, Any]) -> str:
        body = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
        made = await self.cluster.create(kind.path(NAMESPACE), body)
        return str(made["metadata"]["uid"])

    # --- pools ---------------------------------------------------------------------------------------------------------------

    async def _pool_by_kubectl(self, provider: str) -> Thing:
        name = self._next("pool-")
        uid = await self._make(
            POOL, name, {"owner": {"id": "chaos"}, "providerRef": {"name": provider}, **_POOL_SPEC[provider]}
        )
        self.pools[uid] = Thing(uid, name, provider)
        return self.pools[uid]

    async def _pool_by_rest(self, provider: str) -> Thing:
        name, spec = self._next("rest-pool-"), _POOL_SPEC[provider]
        body = {"pool_name": name, "owner_id": "chaos", "provider": provider, "gpu_count": spec["gpuCount"]}
        body |= {
            "allowed_gpu_types": spec.get("allowedGPUTypes", []),
            "provider_pool_id": spec.get("providerPoolID", ""),
        }
        answer = await self._rest("POST", "/createpool", body)
        answer.raise_for_status()
        uid = str(answer.json()["pool_id"])
        items = (await self.cluster.list(POOL.path(NAMESPACE)))["items"]
        found = next(item for item in items if item["metadata"]["uid"] == uid)
        self.pools[uid] = Thing(uid, found["metadata"]["name"], provider)
        return self.pools[uid]

    async def _replace_pool(self) -> str:
        """A new pool, then the end of an old one with all that is in it."""
        old = self._pick(self.pools)
        if old is None:
            return ""
        await (self._pool_by_rest if self._dice.random() < 0.5 else self._pool_by_kubectl)(old.provider)
        old.doomed = True
        for deployment in self.deployments.values():
            deployment.doomed |= deployment.pool == old.uid
        await self.cluster.delete(POOL.path(NAMESPACE, old.name))
        return f"delete pool {old.name}"

    # --- deployments -----------------------------------------------------------------------------------------------------------

    async def provoke(self, provider: str) -> None:
        """Something that makes the operator buy there now: another deployment, or the end of a node that has to be replaced."""
        if self._room(provider) is not None:
            await self._try(partial(self._deploy_by_kubectl, provider))
        else:
            await self._try(partial(self._delete_node, provider))

    def _room(self, provider: str | None = None) -> Thing | None:
        """A pool that another deployment fits in."""
        provider = provider or self._dice.choice(PROVIDERS)
        mine = [item for item in self.deployments.values() if item.provider == provider and not item.doomed]
        return None if self.crowded or len(mine) >= _DEPLOYMENTS else self._pick(self.pools, provider)

    async def _deploy_by_rest(self) -> str:
        pool, name, replicas = self._room(), self._next("rest-"), self._dice.choice((1, 1, 1, 2))
        if pool is None:
            return ""
        self.bought.set()
        body = {"pool_id": pool.uid, "model_name": name, "replicas": replicas}
        body["configuration"] = {"image": "example/model:1", "expose": [{"port": 8000}]}
        answer = await self._rest("POST", "/deploy", body)
        if answer.is_success:
            uid = str(answer.json()["deployment_id"])
            self.deployments[uid] = Thing(uid, "", pool.provider, pool.uid, doomed=pool.doomed)
        return f"deploy {name} x{replicas} in {pool.name}: {answer.status_code}"

    async def _deploy_by_kubectl(self, provider: str | None = None) -> str:
        pool, name, replicas = self._room(provider), self._next("model-"), self._dice.choice((1, 1, 1, 2))
        if pool is None:
            return ""
        self.bought.set()
        workload = {"image": "example/model:1", "ports": [{"name": "http", "port": 8000}]}
        spec = {"poolRef": {"name": pool.name}, "model": {"name": name}, "replicas": replicas, "workload": workload}
        uid = await self._make(DEPLOYMENT, name, spec)
        self.deployments[uid] = Thing(uid, name, pool.provider, pool.uid, doomed=pool.doomed)
        return f"create {name} x{replicas} in {pool.name}"

    async def _path(self, thing: Thing) -> str:
        """The object of a deployment; one that came by REST tells its name first."""
        if not thing.name:
            answer = await self._rest("GET", f"/status/{thing.uid}")
            answer.raise_for_status()
            thing.name = str(answer.json()["resource_name"])
        return DEPLOYMENT.path(NAMESPACE, thing.name)

    async def _scale(self) -> str:
        thing, replicas = self._pick(self.deployments), self._dice.choice((0, 1, 1, 2, 3))
        if thing is None or (self.crowded and replicas > 1):
            return ""
        if self._dice.random() < 0.5:
            answer = await self._rest("PATCH", f"/update/{thing.uid}", {"replicas": replicas})
            return f"scale {thing.name or thing.uid} to {replicas}: {answer.status_code}"
        await self.cluster.merge_patch(f"{await self._path(thing)}/scale", {"spec": {"replicas": replicas}})
        return f"kubectl scale {thing.name} to {replicas}"

    async def _change(self) -> str:
        thing = self._pick(self.deployments)
        if thing is None:
            return ""
        image = f"example/model:{self._dice.randrange(1000)}"
        await self.cluster.merge_patch(await self._path(thing), {"spec": {"workload": {"image": image}}})
        return f"change {thing.name} to {image}"

    async def _terminate(self) -> str:
        thing = self._pick(self.deployments)
        if thing is None:
            return ""
        answer = await self._rest("POST", "/terminate", {"deployment_id": thing.uid})
        return f"terminate {thing.name or thing.uid}: {answer.status_code}"

    async def _start(self) -> str:
        thing = self._pick(self.deployments)
        if thing is None:
            return ""
        self.bought.set()
        answer = await self._rest("POST", "/start", {"deployment_id": thing.uid})
        return f"start {thing.name or thing.uid}: {answer.status_code}"

    async def _delete(self) -> str:
        thing = self._pick(self.deployments)
        if thing is None:
            return ""
        path, thing.doomed = await self._path(thing), True
        await self.cluster.delete(path)
        return f"kubectl delete {thing.name}"

    async def _delete_by_rest(self) -> str:
        thing = self._pick(self.deployments)
        if thing is None:
            return ""
        thing.doomed = True
        answer = await self._rest("DELETE", f"/delete/{thing.uid}")
        # It hasn't ended. Any other answer, and none, may have deleted it.
        thing.doomed = answer.status_code != httpx.codes.BAD_REQUEST
        return f"delete {thing.name or thing.uid}: {answer.status_code}"

    async def _delete_node(self, provider: str | None = None) -> str:
        items = (await self.cluster.list_metadata(NODE.path(NAMESPACE)))["items"] or []
        self.crowded = len(items) > _NODES
        names = sorted(
            item["metadata"]["name"]
            for item in items
            if provider in (None, item["metadata"]["labels"][LABEL_PROVIDER])
            and not item["metadata"].get("deletionTimestamp")
        )
        if not names:
            return ""
        name = self._dice.choice(names)
        await self.cluster.delete(NODE.path(NAMESPACE, name))
        return f"kubectl delete computenode {name}"

    async def _read_logs(self) -> str:
        thing = self._pick(self.deployments)
        if thing is not None:
            await self._rest("GET", f"/logs/{thing.uid}")
        return ""

    # --- the end ---------------------------------------------------------------------------------------------------------------

    async def delete_everything(self) -> None:
        """All deployments and pools, those too whose answers were lost."""
        for kind, things in ((DEPLOYMENT, self.deployments), (POOL, self.pools)):
            for thing in things.values():
                thing.doomed = True
            for item in (await self.cluster.list_metadata(kind.path(NAMESPACE)))["items"] or []:
                try:
                    await self.cluster.delete(kind.path(NAMESPACE, item["metadata"]["name"]))
                except NotFound:
                    continue


def _name(act: Callable[..., Any]) -> str:
    return str((act.func if isinstance(act, partial) else act).__name__)
