"""The chaos harness: everything is killed, stopped, cut off and lied to while users deploy and delete; then it is counted what bills.

    python tests/chaos/run.py --kills 1000 --seed 7

A real etcd and kube-apiserver, two operators, the api and the relay; stand-ins of Nosana and Akash with fault plans, and the demo market that
sells one thing twice if asked twice. Users' acts, kills and faults come from the seed; how they meet is the machine's. After each
round of kills the faults stop, everything must settle, and it is judged from outside (see verdict.py). The last line is
`kills=N faults=N leaked=N doubled=N lost=N`; exit 1 if one of the last three isn't 0, or there were fewer faults than kills.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

REPO: Final = Path(__file__).resolve().parents[2]
if __name__ == "__main__":  # run as a program
    sys.path[:0] = [str(REPO / name) for name in ("tests", "operator", "api", "relay", "cli", "adapters", "crds")]

import httpx
from chaos.fleet import API, OPERATORS, RELAY
from chaos.killer import Killer
from chaos.scene import Scene
from chaos.users import NAMESPACE
from chaos.verdict import Picture, Verdict, doubled, failed, judge, look
from rig.plane import FAST, SYSTEM, install_crds, kubectl

from cal_cli.controlplane import ControlPlane, find, start
from cal_cli.controlplane.tools import FOR_UP
from cal_crds.cluster import Cluster, ClusterError
from cal_crds.meta import DEPLOYMENT, NODE

#: Kills between two judgements.
_ROUND: Final = 250
#: The slowest adapter (akash) wants 100 s of look-ups that find nothing before it buys after an unknown outcome.
_SETTLE_SECONDS: Final = 420.0
_STILL_SECONDS: Final = 6.0


class Run:
    """One run, from the first process to the verdict."""

    def __init__(self, scene: Scene, folder: Path, kills: int, seed: int) -> None:
        self._scene, self._folder, self._kills = scene, folder, kills
        self._killer = Killer(scene.fleet, scene.stage, scene.churn, scene.cluster, seed)
        self._total = Verdict()
        #: Instance-seconds, sampled: all, and those that no wanted node accounts for.
        self._billed = self._beyond = 0.0
        self._began = time.monotonic()

    async def run(self) -> bool:
        """Whether all is well; everything is printed."""
        try:
            await self._scene.start()
            self._say("etcd, kube-apiserver, 2 operators, api, relay, 2 stand-ins and the demo market are up")
            await self._rounds()
            await self._scene.churn.delete_everything()
            await self._settle(nothing=True)
            self._say("everything deleted")
            return await self._report()
        finally:
            await self._scene.stop()

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.0f} s] {text}", flush=True)

    # --- rounds --------------------------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        number = 0
        sampling = asyncio.create_task(self._sample())
        while self._killer.kills < self._kills:
            number += 1
            await self._harm(number)
            kills, faults = dict(self._scene.fleet.kills), dict(await self._scene.stage.faults())
            self._say(f"round {number}: {self._killer.kills} kills {kills}, faults {faults}; now it has to settle")
            await self._settle()
            self._say(f"round {number} is over; {len(self._scene.churn.deployments)} deployments made so far")
        sampling.cancel()

    async def _harm(self, number: int) -> None:
        """One round of kills, with users and faults."""
        scene, killer = self._scene, self._killer
        await scene.stage.storm(number)
        tasks = [
            asyncio.create_task(self._kill(min(self._kills, killer.kills + _ROUND))),
            asyncio.create_task(scene.churn.run()),
            asyncio.create_task(scene.stage.sting()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await scene.stage.calm()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _kill(self, until: int) -> None:
        """Kills up to that number; then faults go on until there were as many."""
        await self._killer.run(until)
        while True:
            if sum((await self._scene.stage.faults()).values()) >= until:
                return
            await asyncio.sleep(0.5)

    async def _settle(self, *, nothing: bool = False) -> None:
        """Until the verdict is clean and stays so; what is wrong when the time is over counts. `nothing`: nothing may be left."""
        end, clean_since = time.monotonic() + _SETTLE_SECONDS, None
        while True:
            picture, verdict = await self._judged(nothing)
            now = time.monotonic()
            clean_since = (clean_since or now) if verdict.clean else None
            if clean_since is not None and now - clean_since >= _STILL_SECONDS:
                return
            if now > end:
                self._condemn(picture, verdict)
                return
            await self._scene.stage.advance(4)
            await asyncio.sleep(1.0)

    async def _judged(self, nothing: bool) -> tuple[Picture | None, Verdict]:
        scene = self._scene
        try:
            picture = await look(scene.cluster, scene.stage)
            for name in failed(picture):
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                await scene.cluster.merge_patch(DEPLOYMENT.path(NAMESPACE, name), {"spec": {"restartedAt": now}})
        except (ClusterError, httpx.HTTPError) as error:
            return None, Verdict(unsettled=[f"can't be asked: {error}"])
        verdict = judge(picture, scene.churn)
        left = {"nodes": picture.nodes, "deployments": picture.deployments, "pools": list(picture.pools.values())}
        if nothing and any(left.values()):
            verdict.unsettled.append(f"left: { {name: len(found) for name, found in left.items()} }")
        return picture, verdict

    def _condemn(self, picture: Picture | None, verdict: Verdict) -> None:
        """Count what is wrong, and keep what there was to see."""
        for line in verdict.lines():
            self._say(line)
        for name, found in vars(verdict).items():
            getattr(self._total, name).extend(found)
        (self._folder / "picture.json").write_text(
            json.dumps(vars(picture) if picture else None, indent=1, default=str)
        )

    async def _sample(self) -> None:
        """Instance-seconds that bill, and those for which there is no node that somebody wants."""
        last, stage = time.monotonic(), self._scene.stage
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            try:
                billing = [token for tokens in (await stage.billing()).values() for token in tokens]
                nodes = (await self._scene.cluster.list(NODE.path(NAMESPACE)))["items"]
            except (ClusterError, httpx.HTTPError):
                continue
            wanted = {node["spec"]["token"] for node in nodes if _is_wanted(node)}
            self._billed += len(billing) * (now - last)
            self._beyond += sum(token not in wanted for token in billing) * (now - last)
            last = now

    # --- the end -------------------------------------------------------------------------------------------------------------

    async def _report(self) -> bool:
        stage, killer, total = self._scene.stage, self._killer, self._total
        faults = sum((await stage.faults()).values())
        await self._say_figures()
        twice = await doubled(stage)
        for line in twice:
            self._say(line)
        wrong = [len(total.leaked), len(twice), len(total.lost)]
        good = not any(wrong) and not total.unsettled and faults >= killer.kills
        if not good:
            plan = self._folder / "plan.txt"
            plan.write_text("\n".join(self._scene.churn.plan))
            print(f"the plan of this run is in {plan}; its end:", *self._scene.churn.plan[-40:], sep="\n")
        print("kills={} faults={} leaked={} doubled={} lost={}".format(killer.kills, faults, *wrong), flush=True)
        return good

    async def _say_figures(self) -> None:
        """What happened, for people: none of it decides."""
        stage, fleet, killer = self._scene.stage, self._scene.fleet, self._killer
        bought = {name: sum(count > 0 for count in marks.values()) for name, marks in (await stage.bought()).items()}
        violations = await stage.violations()
        paused = f"leaders paused past their Lease: {killer.pauses}, taken over: {killer.takeovers}"
        spent = f"billed {self._billed:.0f} instance-seconds (sampled), {self._beyond:.0f} of them beyond need"
        for line in (
            f"kills: {dict(fleet.kills)}; {paused}",
            f"faults shown: {dict(await stage.faults())}; processes that ended by themselves: {dict(fleet.exits)}",
            f"bought: {bought}; {spent}",
            f"REST answers: {dict(sorted(self._scene.churn.answers.items()))}",
            f"requests that broke a provider's contract: {len(violations)} {violations[:3]}",
            f"exceptions in the logs: {dict(self._exceptions())}; unsettled: {len(self._total.unsettled)}",
        ):
            self._say(line)

    def _exceptions(self) -> Counter[str]:
        """Exceptions that nobody foresaw: process and last line of each traceback, up to its first number, to count those of a kind."""
        found: Counter[str] = Counter()
        for name in (*OPERATORS, API, RELAY):
            for trace in (self._folder / f"{name}.log").read_text(errors="replace").split("Traceback")[1:]:
                ends = [line for line in trace.splitlines()[1:] if line and not line.startswith((" ", "+", "|"))]
                found[f"{name}: {re.split('[0-9]', ends[0])[0][:200] if ends else 'cut off'}"] += 1
        return found


def _is_wanted(node: dict[str, Any]) -> bool:
    status = node.get("status") or {}
    return not (node["metadata"].get("deletionTimestamp") or status.get("ended") or status.get("goneTime"))


async def _attack(plane: ControlPlane, folder: Path, kills: int, seed: int) -> bool:
    async with await Cluster.connect(str(plane.kubeconfig)) as cluster:
        return await Run(Scene(plane, cluster, folder, seed), folder, kills, seed).run()


def main() -> int:
    """Parse, run, clean up; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs, also of a good run")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cal-chaos-"))
    binaries = find(FOR_UP, lambda line: print(line, flush=True))
    plane = start(folder / "plane", binaries, FAST)
    good = False
    try:
        install_crds(binaries, plane)
        kubectl(binaries, plane.kubeconfig)("create", "namespace", SYSTEM)
        good = asyncio.run(_attack(plane, folder, options.kills, options.seed))
    finally:
        plane.stop()
        shutil.rmtree(folder / "plane" / "etcd" if options.keep or not good else folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
