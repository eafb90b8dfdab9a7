"""What users do, seeded: deploy, scale, change, terminate, start and delete, by REST and by kubectl's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
from chaos.users import NAMESPACE, PROVIDERS, Thing, Users

from cal_crds.cluster import ClusterError
from cal_crds.meta import DEPLOYMENT, LABEL_PROVIDER, NODE, POOL

#: Deployments that users keep at once with one provider, and nodes at which they hold back.
_DEPLOYMENTS: Final = 6
_NODES: Final = 70


@dataclass
class Churn(Users):
    """The users at work. Whatever they ask for may fail; that is noted, and they go on."""

    #: Set at each deployment and start: who wants to strike just then waits for it.
    bought: asyncio.Event = field(default_factory=asyncio.Event)
    crowded: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
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


def _name(act: Callable[..., Any]) -> str:
    return str((act.func if isinstance(act, partial) else act).__name__)
