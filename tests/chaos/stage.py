"""The providers: two stand-ins as processes of their own and the demo market's books, with their faults, their clocks and their history.

Everything here is told by the stand-ins themselves: what bills, what was ever bought for one mark, and how many faults were shown.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from cal_adapters.contract import Mark
from cal_adapters.fake import Ledger, ledger_path
from cal_cli.controlplane import Process
from cal_cli.controlplane.plane import free_ports

WORLDS: Final = Path(__file__).resolve().parents[1] / "worlds"
DEMO, NOSANA, AKASH = "demo", "nosana", "akash"
KEYS: Final = {NOSANA: "nos_test_key", AKASH: "ac.sk.test.owner"}

#: Percent of requests each; `times` 0: for ever. What buys is hit harder, and after its effect.
_NOSANA_STORM: Final[list[dict[str, Any]]] = [
    {"match": r"^POST /api/deployments/", "kind": "hang-after", "seconds": 2, "percent": 15},
    {"match": r"^POST /api/deployments/", "kind": "cut-after", "percent": 10},
    {"match": r"^POST /api/deployments/", "kind": "status", "status": 500, "percent": 3},
    {"match": "/api/", "kind": "status", "status": 503, "percent": 2},
    {"match": "/api/", "kind": "html", "status": 502, "percent": 1},
    {"match": "/api/", "kind": "garbage", "percent": 1.5},
    {"match": "/api/", "kind": "cut", "percent": 2},
    {"match": "/api/", "kind": "cut-after", "percent": 1.5},
    {"match": "/api/", "kind": "hang", "seconds": 12, "percent": 0.3},
    {"match": "/api/", "kind": "hang-after", "seconds": 12, "percent": 0.3},
    {"match": "/api/", "kind": "rate", "retry_after": 1, "percent": 0.5},
    {"match": r"^GET /api/deployments", "kind": "stale", "seconds": 15, "percent": 4},
]
_AKASH_RATE: Final = 0.1
_AKASH_HANGS: Final = ("createDeployment", "createLeases", "closeDeployment", "listDeployments")
#: (verb, fault) of the demo market. No Refused: that is a customer's mistake, and ends a deployment by right.
_DEMO_FAULTS: Final = (
    ("launch", "AnswerLost"), ("launch", "OutcomeUnknown"), ("launch", "NotSent"), ("launch", "NoCapacity"),
    ("stop", "AnswerLost"), ("stop", "OutcomeUnknown"), ("find", "OutcomeUnknown"), ("list", "OutcomeUnknown"),
    ("observe", "OutcomeUnknown"), ("check", "OutcomeUnknown"), ("offers", "OutcomeUnknown"), ("launch", "RateLimited"),
)  # fmt: skip


class Stage:
    """All three providers."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self._seed = folder, seed
        self.state_dir = folder / "adapters"
        self.state_dir.mkdir()
        self.ledger = Ledger(ledger_path(self.state_dir, DEMO))
        self.urls: dict[str, str] = {}
        self._processes: list[Process] = []
        self._client = httpx.AsyncClient(timeout=20, trust_env=False)
        self._demo_scripted = 0
        self._demo_dropped = 0
        self._dice = random.Random(f"{seed} faults")

    # --- life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Both stand-ins, ready; the demo market slow and forgetful."""
        for name, port in zip((NOSANA, AKASH), free_ports(2), strict=True):
            argv = [sys.executable, "-P", str(WORLDS / f"{name}.py"), f"--port={port}", f"--seed={self._seed}"]
            process = Process(name, argv, self.folder / f"{name}.log")
            self.urls[name] = f"http://127.0.0.1:{port}"
            self._processes.append(process)
            process.start()
        for name, process in zip((NOSANA, AKASH), self._processes, strict=True):
            await asyncio.to_thread(process.wait_ready, partial(self._answers, name), 60.0)
        self.ledger.forget_marks()
        self.ledger.dawdle(0.4)

    def _answers(self, name: str) -> bool:
        try:
            return httpx.get(f"{self.urls[name]}/_world/violations", timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    async def stop(self) -> None:
        await self._client.aclose()
        self.ledger.close()
        for process in self._processes:
            process.stop(grace=3)

    async def _ask(self, world: str, what: str) -> Any:
        answer = await self._client.get(f"{self.urls[world]}/_world/{what}")
        answer.raise_for_status()
        return answer.json()

    async def _tell(self, world: str, what: str, body: Any) -> None:
        (await self._client.post(f"{self.urls[world]}/_world/{what}", json=body)).raise_for_status()

    # --- faults ----------------------------------------------------------------------------------------------------------

    async def storm(self, number: int) -> None:
        """From now on things go wrong."""
        await self._tell(NOSANA, "faults", [{"times": 0, **fault} for fault in _NOSANA_STORM])
        await self._tell(AKASH, "faults", {"rate": _AKASH_RATE, "seed": self._seed + number})

    async def sting(self) -> None:
        """Now and then, beside the storm: scripted faults of the demo market, and calls at akash that hang."""
        while True:
            await asyncio.sleep(self._dice.uniform(0.2, 0.8))
            verb, fault = self._dice.choice(_DEMO_FAULTS)
            try:
                self.ledger.fail_next(verb, fault)
            except sqlite3.OperationalError:
                continue  # a paused operator holds the lock
            self._demo_scripted += 1
            if self._dice.random() < 0.15:
                kind, seconds = self._dice.choice((("hang", 12), ("hang_after", 12), ("hang_after", 2)))
                operation = self._dice.choice(_AKASH_HANGS)
                await self._tell(AKASH, "faults", [{"operation": operation, "kind": kind, "seconds": seconds}])

    async def calm(self) -> None:
        """Nothing goes wrong any more."""
        for world in (NOSANA, AKASH):
            (await self._client.delete(f"{self.urls[world]}/_world/faults")).raise_for_status()
        with self._books() as books:
            self._demo_dropped += int(books.execute("SELECT count(*) FROM script").fetchone()[0])
            books.execute("DELETE FROM script")

    async def faults(self) -> Counter[str]:
        """How many faults were shown so far, by provider."""
        with self._books() as books:
            left = int(books.execute("SELECT count(*) FROM script").fetchone()[0])
        akash: dict[str, int] = await self._ask(AKASH, "faults")
        return Counter(
            {
                NOSANA: int((await self._ask(NOSANA, "stats"))["faults"]),
                AKASH: sum(akash.values()),
                DEMO: self._demo_scripted - self._demo_dropped - left,
            }
        )

    async def advance(self, seconds: float) -> None:
        """The providers' clocks run ahead: what has to settle there settles."""
        for world in (NOSANA, AKASH):
            await self._tell(world, "advance", {"seconds": seconds})

    # --- what is so ------------------------------------------------------------------------------------------------------

    async def billing(self) -> dict[str, list[str]]:
        """Provider -> the token of everything that bills, or will by itself. Sorted; "" for what bears no mark."""
        nosana = [item["name"] for item in await self._ask(NOSANA, "billing") for _ in item["jobs"] or [""]]
        akash = [name for item in await self._ask(AKASH, "billing") for name in item["groups"]]
        found = {NOSANA: map(Mark.read, nosana), AKASH: map(Mark.read, akash), DEMO: self.ledger.billing()}
        return {name: sorted(mark.token if mark else "" for mark in marks) for name, marks in found.items()}

    async def bought(self) -> dict[str, Counter[str]]:
        """Provider -> mark -> how often something was bought for it, ever."""
        nosana: Counter[str] = Counter()
        for item in await self._ask(NOSANA, "deployments"):
            nosana[item["name"]] += len(item["jobs"])
        akash = Counter(name for item in await self._ask(AKASH, "deployments") for name in item["groups"])
        with self._books() as books:
            demo = Counter(mark for (mark,) in books.execute("SELECT mark FROM instance"))
        return {NOSANA: nosana, AKASH: akash, DEMO: demo}

    def demo_sales(self) -> int:
        """How often the demo market sold anything."""
        with self._books() as books:
            return int(books.execute("SELECT count(*) FROM instance").fetchone()[0])

    async def violations(self) -> list[str]:
        """Requests that broke the providers' published contracts."""
        found: list[str] = [*await self._ask(NOSANA, "violations"), *await self._ask(AKASH, "violations")]
        return found

    def _books(self) -> closing[sqlite3.Connection]:
        # A paused operator may hold the lock for as long as it is paused.
        return closing(sqlite3.connect(ledger_path(self.state_dir, DEMO), timeout=60, isolation_level=None))
