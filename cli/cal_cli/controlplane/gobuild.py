"""Builds the programs of the control plane from the Go module beside this file.

Every program is put into the cache as soon as it is linked, and the compiler's cache stays until all that was asked for is there: so an
interrupted build resumes. A file lock makes two processes that ask at once build once.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cal_cli.controlplane.process import tied
from cal_cli.controlplane.progress import Progress
from cal_cli.controlplane.tools import KUBERNETES_VERSION, MODULE, TOOLS, key

MINIMUM_GO = (1, 26)
#: The compiler's cache of everything grew to nearly 10 GB.
_NEEDED_BYTES = 11 << 30
_VERSION_FLAGS = " ".join(
    f"-X {package}.gitVersion=v{KUBERNETES_VERSION}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
)
_TICK = 1.0
_SPEAK_EVERY = 15.0

Say = Callable[[str], None]


class BuildFailed(Exception):
    """No usable Go, or the build broke; the message says which."""


def build(names: list[str], cache: Path, say: Say) -> dict[str, Path]:
    """Builds each of `names` that the cache lacks; returns where they are."""
    target = cache / key()
    target.mkdir(parents=True, exist_ok=True)
    with _lock(cache / "build.lock", say):
        missing = [name for name in names if not (target / name).is_file()]
        if missing:
            _build(missing, target, cache / "gocache", say)
    return {name: target / name for name in names}


def _build(missing: list[str], target: Path, compiled: Path, say: Say) -> None:
    go = _go(say)
    env = _environment(compiled)
    if shutil.disk_usage(target).free < _NEEDED_BYTES:
        say(
            f"warning: less than {_NEEDED_BYTES >> 30} GB free under {target}; the build may need that much for a while"
        )
    say(
        f"building {', '.join(missing)} with {go}: about 10 minutes on two cores the first time; interrupt and it resumes"
    )
    packages = {name: _uncompiled(go, TOOLS[name].package, env, say) for name in missing}
    done: set[str] = set()
    with Progress("building", len(set().union(*packages.values())), say) as progress:
        for name in missing:
            _compile(go, name, target, env, done, progress)
            done |= packages[name]
            say(f"built {target / name}")
    if "kwok" in missing:
        _keep_stages(go, target)
    # Gigabytes that nobody needs once the programs are linked. Modules stay: they are the user's own cache.
    shutil.rmtree(compiled, ignore_errors=True)


def _environment(compiled: Path) -> dict[str, str]:
    # Go wants a home for its modules, also where the environment is empty.
    home = {"HOME": str(Path.home())}
    own = {"GOCACHE": str(compiled), "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    return {**home, **os.environ, **own}


def _go(say: Say) -> str:
    """The go command, new enough. Go itself may fetch a newer toolchain when the user's settings let it."""
    go = shutil.which("go")
    wanted = ".".join(map(str, MINIMUM_GO))
    if go is None:
        raise BuildFailed(f"Go {wanted} or newer is needed, and there is no `go` in PATH (https://go.dev/dl)")
    answer = subprocess.run([go, "env", "GOVERSION"], cwd=MODULE, capture_output=True, text=True, check=False)
    version = re.match(r"go(\d+)\.(\d+)", answer.stdout.strip())
    if answer.returncode != 0 or version is None:
        raise BuildFailed(f"Go {wanted} or newer is needed; `go env GOVERSION` said: {answer.stderr.strip()}")
    if (int(version[1]), int(version[2])) < MINIMUM_GO:
        raise BuildFailed(f"Go {wanted} or newer is needed; {go} is {answer.stdout.strip()}")
    say(f"Go: {go} is {answer.stdout.strip()}")
    return go


def _uncompiled(go: str, package: str, env: dict[str, str], say: Say) -> set[str]:
    """The packages of a program that the compiler's cache lacks. Fetches the modules on the first call, and says so."""
    # The flags must be those of the build: packages are cached by them.
    argv = [go, "list", "-trimpath", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", package]
    process = subprocess.Popen(argv, cwd=MODULE, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    errors: list[str] = []

    def watch(stream: Iterator[str]) -> None:
        spoke = 0.0
        for line in stream:
            errors.append(line)
            if time.monotonic() - spoke > _SPEAK_EVERY:
                spoke = time.monotonic()
                say(line.strip())

    reader = threading.Thread(target=watch, args=(process.stderr,), daemon=True)
    reader.start()
    names = set(process.stdout.read().split())
    reader.join()
    if process.wait() != 0:
        raise BuildFailed(f"`go list -deps {package}` failed: {''.join(errors[-5:]).strip()}")
    return names


def _compile(go: str, name: str, target: Path, env: dict[str, str], done: set[str], progress: Progress) -> None:
    """One program: linked under another name and renamed, so that what has its name is whole."""
    part = target / f".{name}.part"
    argv = [go, "build", "-v", "-trimpath", "-ldflags", f"-s -w {_VERSION_FLAGS}", "-o", str(part), TOOLS[name].package]
    tail: list[str] = []
    with _running(argv, env) as process:
        lines = _lines(process)
        while (line := next(lines, None)) is not None:
            if line:
                done.add(line)
                tail = [*tail[-9:], line]
            progress.show(len(done), f"{name}: {line or (tail[-1] if tail else 'starting')}")
        if process.wait() != 0:
            raise BuildFailed(f"`go build {TOOLS[name].package}` failed: {' | '.join(tail)}")
    part.rename(target / name)


@contextmanager
def _running(argv: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`go build` in a group of its own: however we leave, the compilers that it started end too (kill -9 included)."""
    process = subprocess.Popen(
        tied(argv, signal.SIGKILL),
        cwd=MODULE,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of stderr, and an empty one for each second of silence, so that a bar's clock moves on."""
    assert process.stderr is not None
    heard: queue.Queue[str | None] = queue.Queue()

    def read(stream: Iterator[str]) -> None:
        for line in stream:
            heard.put(line.strip())
        heard.put(None)

    threading.Thread(target=read, args=(process.stderr,), daemon=True).start()
    while True:
        try:
            line = heard.get(timeout=_TICK)
        except queue.Empty:
            yield ""
            continue
        if line is None:
            return
        yield line


def stages(go: str = "go") -> Path:
    """The folder of the stages without which kwok does nothing, in the module cache; fetched if it is there no more."""
    argv = [go, "mod", "download", "-json", "sigs.k8s.io/kwok"]
    answer = subprocess.run(argv, cwd=MODULE, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise BuildFailed(f"kwok's own folder not found: {answer.stdout.strip()} {answer.stderr.strip()}")
    return Path(json.loads(answer.stdout)["Dir"]) / "kustomize" / "stage"


def _keep_stages(go: str, target: Path) -> None:
    shutil.copytree(stages(go), target / "kwok-stages", dirs_exist_ok=True, copy_function=shutil.copyfile)


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building the same programs; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
