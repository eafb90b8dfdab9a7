"""`calctl up`, `down` and `status`: from nothing to ready and back, through every kind of accident."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cal_cli.controlplane import Options, start

pytestmark = pytest.mark.timeout(300)

Calctl = Any
ALL = {"etcd", "kube-apiserver", "operator", "relay", "api"}


def test_up_detach_returns_when_all_of_it_is_ready_and_down_leaves_nothing(calctl: Calctl) -> None:
    result = calctl.up("--demo")
    assert f"export KUBECONFIG={calctl.state}/kubeconfig" in result.stdout
    assert re.search(r"^ready in \d+\.\d s$", result.stderr, re.MULTILINE), "the last that the supervisor says is shown"
    status = calctl("status")
    assert f"{calctl.api_url}   answers" in status.stdout
    assert set(calctl.members()) == ALL
    assert all(psutil.pid_exists(member["pid"]) for member in calctl.members().values())
    providers = calctl("kubectl", "get", "computeproviders", "-o", "name").stdout.split()
    assert providers == ["computeprovider.calayer.dev/demo", "computeprovider.calayer.dev/local"]

    calctl("down")
    assert calctl.processes() == []
    assert calctl("status", check=False).returncode == 1
    assert "stopped" in calctl("down").stderr, "a second down has nothing to do and says so"


def test_without_demo_only_local_is_registered_and_a_second_up_keeps_what_users_changed(calctl: Calctl) -> None:
    calctl.up()
    assert calctl("kubectl", "get", "cprov", "-o", "name").stdout.split() == ["computeprovider.calayer.dev/local"]
    calctl("kubectl", "patch", "cprov/local", "--type=merge", '-p={"spec":{"desiredState":"Paused"}}')
    calctl("down")
    kubeconfig = (calctl.state / "kubeconfig").read_text()
    calctl.up()
    assert calctl("kubectl", "get", "cprov/local", "-o=jsonpath={.spec.desiredState}").stdout == "Paused"
    assert (calctl.state / "kubeconfig").read_text() == kubeconfig, "a kubeconfig in somebody's shell stays true"


def test_one_state_directory_runs_once(system: Calctl) -> None:
    for extra in ([], ["--detach"]):
        result = system("up", *system.ports, *extra, check=False)
        assert result.returncode == 1
        assert f"already running (pid {system.record()['pid']})" in result.stderr
    system("status")


def test_a_state_directory_by_option_is_in_what_it_says_to_do_next(calctl: Calctl) -> None:
    found = f"--state-dir={calctl.state}"
    del calctl.env["CAL_STATE_DIR"]
    said = calctl("up", "--detach", found, *calctl.ports).stdout
    calctl.env["CAL_STATE_DIR"] = str(calctl.state)
    assert f"calctl     export CAL_STATE_DIR={calctl.state}\n" in said
    assert f"`calctl down --state-dir {calctl.state}` stops it." in said


def test_what_it_says_to_type_can_be_typed_where_a_path_has_spaces(new_calctl: Callable[[], Calctl]) -> None:
    calctl = new_calctl()
    calctl.state = calctl.state.with_name("a state")
    said = calctl("up", "--detach", "--state-dir", str(calctl.state), *calctl.ports).stdout
    calctl.env["CAL_STATE_DIR"] = str(calctl.state)
    exports = "; ".join(line.split(maxsplit=1)[1] for line in said.splitlines() if " export " in line)
    script = f'{exports}; printf "%s\\n" "$KUBECONFIG" "$CAL_STATE_DIR"'
    shown = subprocess.run(["sh", "-c", script], env=calctl.env, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [str(calctl.state / "kubeconfig"), str(calctl.state)]
    calctl("down")
    after = calctl("kubectl", "get", "pods", check=False)
    assert "start it with `calctl up`" in after.stderr, "and not kubectl's own guesses"


def test_two_systems_run_side_by_side(new_calctl: Callable[[], Calctl]) -> None:
    first, second = new_calctl(), new_calctl()
    starting = [
        subprocess.Popen(
            [*c.argv, "up", "--detach", *c.ports], env=c.env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        for c in (first, second)
    ]
    assert [process.wait(200) for process in starting] == [0, 0]
    for one in (first, second):
        one("status")
        one("down")


@pytest.mark.parametrize("which", ["api", "relay"])
def test_a_port_in_use_is_named_with_its_user(calctl: Calctl, which: str) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", getattr(calctl, f"{which}_port")))
        squatter.listen()
        result = calctl("up", *calctl.ports, check=False)
    assert result.returncode == 1
    assert f"port {getattr(calctl, f'{which}_port')} is in use by" in result.stderr
    assert f"--{which}-port" in result.stderr
    assert calctl.processes() == []


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_dies_is_started_again(system: Calctl, eventually: Callable[..., Any], name: str) -> None:
    before = system.members()[name]
    psutil.Process(before["pid"]).kill()
    eventually(lambda: system.members()[name]["restarts"] == before["restarts"] + 1, timeout=60)
    eventually(lambda: system("status", check=False).returncode == 0, timeout=60, interval=1)
    assert "local" in eventually(lambda: system("get", "providers", check=False).stdout, timeout=60, interval=1)


def test_after_kill_9_of_the_supervisor_the_next_up_carries_on(
    calctl: Calctl, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    calctl.up()
    url = _serve(calctl)
    left = calctl.members()
    psutil.Process(calctl.record()["pid"]).kill()
    eventually(lambda: calctl("status", check=False).returncode == 1)

    calctl.up()
    assert {m["pid"] for m in calctl.members().values()}.isdisjoint(m["pid"] for m in left.values())
    assert not any(_same(member) for member in left.values()), "nothing of the first life is left"
    eventually(lambda: _answers(url), timeout=60)
    assert "FAILED" not in calctl("get", "deployments").stdout
    assert (
        len([p for p in psutil.process_iter() if "http.server" in _words(p) and url.rpartition(":")[2] in _words(p)])
        == 1
    )

    calctl("down")
    assert calctl.processes() == []
    eventually(lambda: not _answers(url))
    calctl.up()
    eventually(lambda: _answers(url), timeout=60)


def test_down_after_kill_9_of_the_supervisor_ends_what_is_left(calctl: Calctl, eventually: Callable[..., Any]) -> None:
    calctl.up()
    url = _serve(calctl)
    psutil.Process(calctl.record()["pid"]).kill()
    calctl("down")
    eventually(lambda: calctl.processes() == [])
    eventually(lambda: not _answers(url))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_stops_all_of_it(
    calctl: Calctl, eventually: Callable[..., Any], number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*calctl.argv, "up", *calctl.ports], env=calctl.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C stops it" in line:
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 0, said
    assert calctl.processes() == []


def test_a_signal_while_starting_leaves_nothing(calctl: Calctl, eventually: Callable[..., Any]) -> None:
    argv = [*calctl.argv, "up", *calctl.ports]
    process = subprocess.Popen(argv, env=calctl.env, stderr=subprocess.PIPE, text=True)
    eventually((calctl.state / "logs" / "kube-apiserver.log").exists)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "calctl: interrupted before it was ready" in said
    assert calctl.processes() == []


def test_a_process_that_can_not_start_ends_up_with_its_last_words(calctl: Calctl) -> None:
    calctl.up()
    calctl("down")
    (calctl.state / "etcd" / "member" / "snap" / "db").write_bytes(b"spoilt" * 1000)
    for extra in ([], ["--detach"]):
        result = calctl("up", *calctl.ports, *extra, check=False)
        assert result.returncode == 1
        assert "calctl: etcd ended with code" in result.stderr
        assert result.stderr.count("calctl:") == 1
    assert calctl.processes() == []


def test_a_cluster_of_the_users_own(calctl: Calctl, binaries: dict[str, Path], tmp_path: Path) -> None:
    plane = start(tmp_path, binaries, Options(fsync=False))
    try:
        calctl.env["KUBECONFIG"] = str(plane.kubeconfig)
        kubectl = [str(binaries["kubectl"]), f"--kubeconfig={plane.kubeconfig}"]
        own = ["secret", "generic", "cal-model-key", "--namespace=cal-system", f"--from-literal=key={'k' * 32}"]
        for made in (["namespace", "cal-system"], own):
            subprocess.run([*kubectl, "create", *made], check=True, capture_output=True)
        calctl.up("--context", "calctl")
        assert (calctl.state / "model-key").read_bytes() == b"k" * 32, "the Secret that is there counts"
        assert set(calctl.members()) == {"operator", "relay", "api"}
        assert "context calctl" in calctl("status").stdout
        assert "local" in calctl("get", "providers").stdout
        calctl("down")
        assert plane.apiserver_ready(), "a cluster that isn't ours is left alone"
    finally:
        plane.stop()


def test_a_proxy_for_the_world_outside_is_not_asked_for_what_is_here(calctl: Calctl, free_port: int) -> None:
    dead = f"http://127.0.0.1:{free_port}"
    calctl.env |= dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"), dead
    )
    calctl.up("--demo")
    assert "demo" in calctl("get", "providers").stdout
    calctl("create", "pool", "p", "--provider", "demo")
    calctl("deploy", "m", "--pool", "p", "--image", "x", "--gpus", "1", "--wait", "--timeout", "60")
    assert calctl("logs", "m").stdout
    assert calctl("get", "deployments", "m", "-o", "yaml").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["up", "--api-port", "0"], 2, "--api-port", id="port 0"),
        pytest.param(["up", "--api-port", "x"], 2, "not a valid integer", id="port no number"),
        pytest.param(["up", "--api-port", "70000"], 2, "65535", id="port too high"),
        pytest.param(["up", "--api-port", "4000", "--relay-port", "4000"], 1, "must differ", id="one port for two"),
        pytest.param(["up", "--context", "no-such"], 1, "no-such", id="unknown context"),
        pytest.param(["up", "--state-dir", "/dev/null/x"], 1, "can't be made", id="state directory can't be"),
        pytest.param(["up", "--state-dir", ""], 2, "is empty", id="a variable that is not set"),
        pytest.param(["status", "--state-dir", "/dev/null"], 1, "Not a directory", id="status of a file"),
        pytest.param(["get", "pools", "--state-dir", "/dev/null"], 1, "Not a directory", id="pools of a file"),
        pytest.param(["up", "unexpected"], 2, "unexpected", id="argument too many"),
        pytest.param(["frobnicate"], 2, "frobnicate", id="unknown command"),
        pytest.param(["kubectl", "get", "nodes"], 1, "calctl up", id="kubectl without a control plane"),
        pytest.param(["status"], 1, None, id="status of nothing"),
        pytest.param(["down"], 0, "nothing to stop", id="down of nothing"),
        pytest.param(["down", "--terminate"], 0, "nothing to stop", id="terminate of nothing"),
    ],
)
def test_bad_input_is_one_clear_line(calctl: Calctl, arguments: list[str], code: int, words: str | None) -> None:
    result = calctl(*arguments, check=False)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert words is None or words in result.stderr
    assert calctl.processes() == []


def _serve(calctl: Calctl) -> str:
    """Deploys a web server on `local`; its address."""
    calctl("create", "pool", "here", "--provider", "local", "--gpu-count", "0")
    script = "exec python3 -m http.server $PORT --bind 127.0.0.1"
    command = ["--port", "8000", "--gpus", "0", "--wait", "--timeout", "60", "--", "sh", "-c", script]
    url = str(calctl("deploy", "web", "--pool", "here", *command).stdout.split()[-1])
    assert _answers(url)
    return url


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _same(member: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(member["pid"])
        return abs(process.create_time() - member["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
