"""`calctl up`: the whole system on this machine, under one supervisor, from nothing to ready and back."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cal_cli.bootstrap import bootstrap, model_key
from cal_cli.collect import collecting
from cal_cli.controlplane import BinariesNotFound, ProcessFailed, find
from cal_cli.controlplane.plane import ControlPlane, Options, free_ports, prepare
from cal_cli.controlplane.tools import FOR_UP
from cal_cli.errors import Failure, say
from cal_cli.instances import Instance, running_on, words
from cal_cli.kube import Kube
from cal_cli.leftovers import end_leftovers, interrupt_local
from cal_cli.ports import refuse_taken
from cal_cli.signals import disarm, interruptible
from cal_cli.stack import API, OPERATOR, RELAY, USERS, Settings, members
from cal_cli.statedir import Member, State, StateDir
from cal_cli.supervisor import Supervised, Supervisor

_READY = 60.0


@dataclass(frozen=True)
class Request:
    """The flags of `calctl up`."""

    state: StateDir
    api_port: int
    relay_port: int
    demo: bool
    offline: bool
    context: str | None
    namespace: str

    @property
    def providers(self) -> list[str]:
        """Which folders of providers are registered."""
        wanted = {"local": True, "demo": self.demo, "remote": not self.offline, "cluster": bool(self.context)}
        return [folder for folder, registered in wanted.items() if registered]


def up(request: Request, when_ready: Callable[[Settings, threading.Event], None]) -> None:
    """Runs until SIGTERM or Ctrl-C. `when_ready` is called in a thread of its own once everything answers.

    Raises `Failure` when something can't be started; nothing is left running then.
    """
    with request.state.lock(), interruptible() as stop:
        began = time.monotonic()
        end_leftovers(request.state, say)
        refuse_taken({"--api-port": request.api_port, "--relay-port": request.relay_port})
        settings = _settings(request)
        run = _Run(request, settings)
        try:
            run.start()
            disarm()
            say(f"ready in {time.monotonic() - began:.1f} s")
            run.tell_ready()
            threading.Thread(target=when_ready, args=(settings, stop), daemon=True).start()
            if request.context is None:  # a cluster has its own
                threading.Thread(target=collecting, args=(request.state.kubeconfig, stop), daemon=True).start()
            run.supervisor.watch(stop)
        except (BinariesNotFound, ProcessFailed) as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            raise Failure("interrupted before it was ready") from None
        finally:
            disarm()
            run.stop()


class _Run:
    """One life of the supervisor."""

    def __init__(self, request: Request, settings: Settings) -> None:
        self._request, self._settings = request, settings
        before = request.state.read()
        self._old_ports = before.ports if before else []
        self.state = State(
            pid=os.getpid(),
            api_url=settings.api_url,
            relay_url=settings.public_relay_url,
            context=request.context,
        )
        self.supervisor = Supervisor(say, self._record)
        self._plane: ControlPlane | None = None
        self._kubeconfig: Path | None = None
        # Children inherit the read end only. Ours closes with us, whatever ends us.
        self._lifeline, self._held = os.pipe()

    def start(self) -> None:
        binaries = find(["kubectl"] if self._request.context else FOR_UP, say)
        self._record([])
        kubeconfigs = self._foreign(binaries["kubectl"]) if self._request.context else self._own(binaries)
        say("applying CRDs, access rights and providers")
        kube = Kube(self._kubeconfig_path())
        own = self._plane is not None
        bootstrap(kube, namespace=self._settings.namespace, providers=self._request.providers, rbac=own)
        self._settings.state.keep_model_key(model_key(kube))
        say("starting operator, api and relay")
        started = members(self._settings, kubeconfigs, self._lifeline)
        for member in started:
            self.supervisor.add(member)
        for member in started:
            member.process.wait_ready(member.ready, _READY)

    def tell_ready(self) -> None:
        """For `status`, and for a `--detach` that waits for it and then shows no more of what was said."""
        self.state.ready = True
        self._record([member.member() for member in self.supervisor.members])

    def stop(self) -> None:
        """Those that act first, then what they act on; what costs money goes on, and is named."""
        if self.supervisor.members:
            say("stopping")
        self.supervisor.stop({OPERATOR, API, RELAY})
        outliving = self._outliving()  # a purchase that was under way is recorded by now
        if any(member.process.name == OPERATOR for member in self.supervisor.members):
            interrupt_local(self._settings.state, say)
        self.supervisor.stop({"kube-apiserver"})
        self.supervisor.stop({"etcd"})
        self.state.ready = False
        self._record([])
        for line in words(outliving):
            say(line)

    def _own(self, binaries: dict[str, Path]) -> dict[str, Path]:
        """etcd and kube-apiserver of our own; a client certificate for each process."""
        old = self._old_ports
        ports = (old[0], old[1], old[2]) if len(old) == 3 else None
        plane = self._plane = prepare(self._settings.state.path, binaries, Options(ports=ports))
        self.state.ports, self._kubeconfig = list(plane.ports), plane.kubeconfig
        say("starting etcd and kube-apiserver")
        # The API server drops open watches only after a while; all state is in etcd, so nothing is lost by a short grace.
        for process, ready, grace in (
            (plane.etcd, plane.etcd_ready, 10.0),
            (plane.apiserver, plane.apiserver_ready, 5.0),
        ):
            self.supervisor.add(Supervised(process, ready, grace))
            process.wait_ready(ready, _READY)
        return {name: plane.user_kubeconfig(user) for name, user in USERS.items()}

    def _foreign(self, kubectl: Path) -> dict[str, Path]:
        """The cluster of a context of the user's kubeconfig, with that user's rights."""
        argv = [str(kubectl), "config", "view", "--raw", "--flatten", "--minify", f"--context={self._request.context}"]
        answer = subprocess.run(argv, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise Failure(f"context {self._request.context!r}: {answer.stderr.strip()}")
        path = self._kubeconfig = self._settings.state.path / "kubeconfig"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(answer.stdout)
        return dict.fromkeys(USERS, path)

    def _kubeconfig_path(self) -> Path:
        assert self._kubeconfig is not None
        return self._kubeconfig

    def _outliving(self) -> list[Instance]:
        if self._kubeconfig is None or not self.state.ready:
            return []
        try:
            return running_on(Kube(self._kubeconfig, timeout=5))
        except Failure as error:
            say(f"can't tell which instances run on: {error.message}")
            return []

    def _record(self, running: list[Member]) -> None:
        self.state.members = running
        self.state.kubeconfig = str(self._kubeconfig or "")
        try:
            self._settings.state.write(self.state)
        except OSError as error:  # a full disk must not end what still runs
            say(f"the state file can't be written: {error.strerror}")


def _settings(request: Request) -> Settings:
    return Settings(
        state=request.state,
        api_port=request.api_port,
        relay_port=request.relay_port,
        metrics_port=free_ports(1)[0],
        demo=request.demo,
        namespace=request.namespace,
    )
