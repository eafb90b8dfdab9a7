"""`calctl down`: stops the control plane and local processes. Paid instances run on, are named, and guard the state directory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil

from cal_cli.controlplane import BinariesNotFound, ProcessFailed, find, start
from cal_cli.controlplane.tools import SERVERS
from cal_cli.errors import Failure, say
from cal_cli.instances import Instance, running_on, words
from cal_cli.kube import Kube
from cal_cli.leftovers import end_leftovers, interrupt_local
from cal_cli.statedir import StateDir, alive
from cal_crds.meta import DEPLOYMENT, NODE

_STOP = 120.0
_TERMINATE = 1800.0
_POLL = 0.2
_SPEAK_EVERY = 10.0


def down(state: StateDir, *, purge: bool, terminate: bool) -> None:
    """Idempotent. With `terminate` every deployment ends first; with `purge` the state directory goes, if nothing needs it."""
    if not state.ours():
        _nothing_there(state, purge)
        return
    if terminate:
        _terminate_all(state)
    if purge:
        _refuse_purge(state)
    if state.running():
        _stop_supervisor(state)
    else:
        end_leftovers(state, say)
        interrupt_local(state, say)
    say("stopped")
    if purge:
        with state.lock():
            shutil.rmtree(state.path)
        say(f"removed {state.path}")


def _nothing_there(state: StateDir, purge: bool) -> None:
    if purge and state.path.exists():  # a mistyped path may be anybody's folder
        raise Failure(f"not purged: {state.path} is no state directory of `calctl up`")
    say(f"nothing to stop: {state.path} is no state directory of `calctl up`")


def _stop_supervisor(state: StateDir) -> None:
    known = state.read()
    if known is None:
        raise Failure(f"{state.path} is locked by a process that left no record; see its logs in {state.logs}")
    outliving = _outliving(state) if known.ready else []
    say(f"stopping the supervisor (pid {known.pid})")
    supervisor = _terminate(known.pid)
    deadline = time.monotonic() + _STOP
    # The lock is free a moment before the process is gone.
    while state.running() or (supervisor is not None and alive(supervisor)):
        if time.monotonic() > deadline:
            raise Failure(f"the supervisor (pid {known.pid}) did not stop in {_STOP:.0f} s; its log is in {state.logs}")
        time.sleep(_POLL)
    for line in words(outliving):
        say(line)


def _terminate(pid: int) -> psutil.Process | None:
    """SIGTERM; None if the process ended by itself just now."""
    try:
        process = psutil.Process(pid)
        process.terminate()
    except psutil.NoSuchProcess:
        return None
    return process


def _outliving(state: StateDir) -> list[Instance]:
    try:
        return running_on(Kube(state.kubeconfig, timeout=5))
    except Failure as error:
        say(f"can't tell which instances run on: {error.message}")
        return []


def _refuse_purge(state: StateDir) -> None:
    """The records in etcd are all that is known of paid instances: they don't go while one may exist."""
    instances = _recorded(state)
    if instances:
        listing = "\n".join(words(instances))
        raise Failure(
            f"not purged: the state directory is the only record of these\n{listing}\nend them with --terminate"
        )


def _recorded(state: StateDir) -> list[Instance]:
    """What the API server has on record; it is started for the question where it doesn't run."""
    if state.running():
        return running_on(Kube(state.kubeconfig))
    if not (state.path / "etcd").is_dir():
        return []
    with state.lock():
        end_leftovers(state, say)
        say("starting etcd and kube-apiserver to look for paid instances")
        return _ask_stopped(state.path)


def _ask_stopped(path: Path) -> list[Instance]:
    try:
        plane = start(path, find(SERVERS, lambda line: None))
    except (BinariesNotFound, ProcessFailed) as error:
        raise Failure(f"not purged: can't tell whether paid instances exist: {error}") from error
    try:
        return running_on(Kube(plane.kubeconfig))
    finally:
        plane.stop()


def _terminate_all(state: StateDir) -> None:
    """Wishes every deployment terminated and waits until no node is left: a node goes when its instance is proven gone."""
    known = state.read()
    if not state.running() or known is None or not known.ready:
        raise Failure("--terminate needs the running system: start it with `calctl up --detach`, then try again")
    kube = Kube(state.kubeconfig)
    for body in kube.items(DEPLOYMENT.path()):
        meta = body["metadata"]
        path = DEPLOYMENT.path(meta["namespace"], meta["name"])
        kube.merge_patch(path, {"spec": {"desiredState": "Terminated"}})
    deadline, spoke = time.monotonic() + _TERMINATE, time.monotonic()
    while nodes := kube.items(NODE.path()):
        if time.monotonic() > deadline:
            raise Failure(f"{len(nodes)} instance(s) are not proven gone after {_TERMINATE:.0f} s; nothing was stopped")
        if time.monotonic() - spoke > _SPEAK_EVERY:
            spoke = time.monotonic()
            say(f"waiting for {len(nodes)} instance(s) to be gone: {', '.join(_name(node) for node in nodes[:5])}")
        time.sleep(_POLL)


def _name(node: dict[str, dict[str, str]]) -> str:
    return f"{node['metadata']['namespace']}/{node['metadata']['name']}"
