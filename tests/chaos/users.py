"""What users have and remember, and how they reach it: by REST and by kubectl's way. What was acknowledged is remembered."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from chaos.stage import AKASH, DEMO, NOSANA

from cal_crds.cluster import Cluster, NotFound
from cal_crds.meta import API_VERSION, DEPLOYMENT, POOL, Kind

NAMESPACE: Final = "default"
PROVIDERS: Final = (DEMO, NOSANA, AKASH)
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
class Users:
    """`plan` is what they did, for people; `answers` the status codes that they got."""

    cluster: Cluster
    api: httpx.AsyncClient
    seed: int
    plan: list[str] = field(default_factory=list)
    pools: dict[str, Thing] = field(default_factory=dict)
    deployments: dict[str, Thing] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = random.Random(f"{self.seed} churn")
        self._numbers = 0

    def note(self, what: str) -> None:
        """One line of the plan."""
        self.plan.append(f"{time.strftime('%H:%M:%S')} {what}")

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
