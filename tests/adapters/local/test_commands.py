"""What a local command is given: arguments, variables, ports, limits; and how it is told when it can't run."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from worlds.contract_local import LocalWorld
from worlds.contract_world import INSTALLATION

from cal_adapters.contract import Instance, Mark, Observation, Readiness, State
from cal_adapters.errors import NoCapacity, Refused
from cal_adapters.local import create, kernel
from cal_adapters.local.adapter import LocalAdapter
from cal_adapters.local.home import Home
from cal_crds.names import new_token
from cal_crds.node import Offer
from cal_crds.workload import Port, PortProtocol, Resources, Workload

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
Launched = Callable[..., Awaitable[Instance]]
Reach = Callable[..., Awaitable[Observation]]

HTTP = Port(name="http", port=8000)


def python(code: str, *args: str, **more: Any) -> Workload:
    """A workload that runs some Python."""
    return Workload(command=[sys.executable, "-c", code], args=list(args), **more)


@pytest.fixture
def printed(
    here: LocalWorld, local: LocalAdapter, mark: Mark, reach: Reach
) -> Callable[[Workload], Awaitable[list[str]]]:
    """await printed(workload): what it printed until it ended with 0."""

    async def run(workload: Workload) -> list[str]:
        instance = await local.launch(await here.request(mark, workload=workload))
        seen = await reach(instance.handle, State.SUCCEEDED, State.FAILED)
        assert seen.state is State.SUCCEEDED, seen.message
        return list(await local.logs(instance.handle, 1000))

    return run


Printed = Callable[[Workload], Awaitable[list[str]]]


# --- what it is given


async def test_arguments_arrive_as_they_are(printed: Printed) -> None:
    awkward = ["; rm -rf /tmp/x", "$HOME", "$(NO_SUCH)", "a\nb", "q\"uo'te", "", "ünï", "-n", "$$(PORT)"]
    lines = await printed(python("import sys; [print(ascii(a)) for a in sys.argv[1:]]", *awkward))
    assert lines == [ascii(text) for text in [*awkward[:-1], "$(PORT)"]]


async def test_references_to_variables_are_filled_in_as_in_kubernetes(printed: Printed) -> None:
    code = "import sys, os; print(sys.argv[1] == os.environ['PORT'] + '/' + os.environ['CAL_TEST_SECRET'])"
    assert await printed(python(code, "$(PORT)/$(CAL_TEST_SECRET)", ports=[HTTP])) == ["True"]


async def test_the_operators_own_variables_stay_with_the_operator(
    printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOSANA_API_KEY", "private")
    monkeypatch.setenv("KUBECONFIG", "/private")
    monkeypatch.setenv("CAL_EXAMPLES", "/examples")
    names = set(await printed(python("import os; [print(name) for name in os.environ]", ports=[HTTP])))
    expected = {"PATH", "CAL_EXAMPLES", "CAL_MARK", "PORT", "PORT_HTTP", "CAL_TEST_SECRET", "PYTHONUNBUFFERED"}
    assert expected <= names
    assert not {"NOSANA_API_KEY", "KUBECONFIG", "CAL_LIFELINE_FD", "PYTHONPATH", "VIRTUAL_ENV"} & names


async def test_it_works_in_a_folder_of_its_own_or_the_one_that_is_named(
    here: LocalWorld, mark: Mark, printed: Printed
) -> None:
    own = here.state_dir / "local" / "instances" / str(mark) / "work"
    assert await printed(python("import os; print(os.getcwd()); open('kept', 'w')")) == [str(own)]
    assert (own / "kept").exists()


async def test_a_named_working_directory(printed: Printed, tmp_path: Path) -> None:
    assert await printed(python("import os; print(os.getcwd())", working_dir=str(tmp_path))) == [str(tmp_path)]


# --- ports


def lowest_ephemeral() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


async def test_each_port_is_handed_over_from_outside_the_ephemeral_range(printed: Printed) -> None:
    ports = [HTTP, Port(name="side-door", port=9000, protocol=PortProtocol.TCP)]
    code = "import os; print(os.environ['PORT'], os.environ['PORT_HTTP'], os.environ['PORT_SIDE_DOOR'])"
    first, http, side = map(int, (await printed(python(code, ports=ports)))[0].split())
    assert first == http != side
    assert all(1024 <= port < lowest_ephemeral() for port in (http, side))


async def test_the_endpoint_is_the_workloads_own(local: LocalAdapter, mark: Mark, launched: Launched) -> None:
    instance = await launched(mark)
    seen = await local.observe(instance.handle)
    assert seen.readiness is Readiness.PROBE
    assert seen.endpoint is not None
    async with httpx.AsyncClient() as client:
        answer = await client.get(seen.endpoint)
    assert int(answer.text.split()[1]) in kernel.bearing("CAL_MARK", str(mark))


async def test_a_squatter_on_its_port_is_never_its_endpoint(
    here: LocalWorld, local: LocalAdapter, mark: Mark, eventually: Callable[..., Any]
) -> None:
    """Somebody else listens where the workload should: a probe would be answered, by a stranger."""
    waiting = python("import time; time.sleep(1000)", ports=[HTTP])
    instance = await local.launch(await here.request(mark, workload=waiting))
    home = Home(here.state_dir / "local" / "instances" / str(mark))
    port = eventually(lambda: (record := home.record()) and record.ports.get("http"))
    with socket.create_server(("127.0.0.1", port)) as squatter:
        threading.Thread(target=_accept_once, args=[squatter], daemon=True).start()
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        seen = await local.observe(instance.handle)
    assert (seen.state, seen.readiness) == (State.RUNNING, Readiness.NO)


def _accept_once(server: socket.socket) -> None:
    server.accept()[0].close()


async def test_a_workload_that_listens_on_the_port_of_its_spec_is_found_there(
    local: LocalAdapter, mark: Mark, launched: Launched, free_port: int
) -> None:
    """Most programs know nothing of PORT."""
    fixed = python(
        f"import http.server as h; h.HTTPServer(('127.0.0.1', {free_port}), h.SimpleHTTPRequestHandler).serve_forever()",
        ports=[Port(name="http", port=free_port)],
    )
    instance = await launched(mark, workload=fixed)
    assert (await local.observe(instance.handle)).endpoint == f"http://127.0.0.1:{free_port}"


async def test_a_grandchild_may_be_the_one_that_listens(mark: Mark, launched: Launched) -> None:
    server = "import http.server as h, os; h.HTTPServer(('', int(os.environ['PORT'])), h.SimpleHTTPRequestHandler).serve_forever()"
    await launched(mark, workload=Workload(command=["sh", "-c", f'{sys.executable} -c "{server}"; true'], ports=[HTTP]))


async def test_without_ports_it_is_ready_when_it_runs(local: LocalAdapter, mark: Mark, launched: Launched) -> None:
    instance = await launched(mark, workload=python("import time; time.sleep(1000)"))
    seen = await local.observe(instance.handle)
    assert (seen.readiness, seen.endpoint) == (Readiness.YES, None)


# --- what can't run


async def test_without_a_folder_everything_is_refused(here: LocalWorld, mark: Mark) -> None:
    adapter = create(replace(here.context(), state_dir=None))
    for call in (adapter.check(), adapter.find(mark), adapter.stop(str(mark)), adapter.list_marked()):
        with pytest.raises(Refused, match="adapter-state-dir"):
            await call


async def test_an_image_alone_is_refused(here: LocalWorld, local: LocalAdapter, mark: Mark) -> None:
    with pytest.raises(Refused, match=r"workload\.command"):
        await local.launch(await here.request(mark, workload=Workload(image="vllm/vllm-openai:v0.11.0")))
    assert list(await local.find(mark)) == []


@pytest.mark.parametrize(
    ("workload", "exit_code", "message"),
    [
        (Workload(command=["no-such-command-anywhere", "x"]), 127, "command not found: no-such-command-anywhere"),
        (Workload(command=["/etc/passwd"]), 126, "can't be started"),
        (Workload(command=["true"], working_dir="/no/such/place"), 127, "working directory not found: /no/such/place"),
        (python("print('the reason'); raise SystemExit(5)"), 5, "exit code 5; its last lines:\nthe reason"),
        (python("import os; os.kill(os.getpid(), 11)"), 139, "ended by SIGSEGV"),
    ],
    ids=["no command", "not executable", "no directory", "dies at once", "signal"],
)
async def test_a_failure_says_why(
    here: LocalWorld, local: LocalAdapter, mark: Mark, reach: Reach, workload: Workload, exit_code: int, message: str
) -> None:
    instance = await local.launch(await here.request(mark, workload=workload))
    seen = await reach(instance.handle, State.FAILED)
    assert seen.exit_code == exit_code
    assert message in seen.message


# --- limits


async def test_cpus_are_limited_by_affinity(printed: Printed) -> None:
    code = "import os; print(len(os.sched_getaffinity(0)))"
    assert await printed(python(code, resources=Resources(cpu="1"))) == ["1"]


async def test_memory_of_one_process_is_limited(printed: Printed) -> None:
    code = "try: bytearray(400 << 20); print('got it')\nexcept MemoryError: print('refused')"
    assert await printed(python(code, resources=Resources(memory="200Mi"))) == ["refused"]


async def test_memory_of_all_processes_together_is_limited(
    here: LocalWorld, local: LocalAdapter, mark: Mark, reach: Reach
) -> None:
    """Each below the limit, together above it."""
    code = "import os, time; os.fork(); os.fork(); hold = bytearray(os.urandom(1 << 20) * 80); time.sleep(1000)"
    greedy = python(code, resources=Resources(memory="200Mi"))
    instance = await local.launch(await here.request(mark, workload=greedy))
    seen = await reach(instance.handle, State.FAILED)
    assert "more than its 200 MiB" in seen.message
    assert list(await here.billing()) == []


async def test_the_kernel_takes_workloads_first_when_memory_runs_out(printed: Printed) -> None:
    assert await printed(python("print(open('/proc/self/oom_score_adj').read().strip())")) == ["500"]


async def test_more_than_is_left_is_no_capacity_and_more_than_there_is_is_refused(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Launched, gone: Callable[[str], Awaitable[None]]
) -> None:
    sleeper = ["sleep", "1000"]
    whole = Workload(command=sleeper, resources=Resources(cpu="2"))
    with pytest.raises(Refused):
        await local.launch(await here.request(mark, workload=Workload(command=sleeper, resources=Resources(cpu="3"))))
    first = await launched(mark, workload=whole)
    assert (await local.offers())[0].vcpu == 0
    second = Mark(INSTALLATION, new_token())
    with pytest.raises(NoCapacity, match="0 CPUs"):
        await local.launch(await here.request(second, workload=whole))
    assert list(await local.find(second)) == []
    await gone(first.handle)
    await launched(second, workload=whole)


async def test_each_gpu_belongs_to_one_workload(
    here: LocalWorld,
    local: LocalAdapter,
    launched: Launched,
    gone: Callable[[str], Awaitable[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two GPUs, as nvidia-smi would tell of them; the program stands in for it, since this machine has none."""
    stand_in = tmp_path / "bin" / "nvidia-smi"
    stand_in.parent.mkdir()
    stand_in.write_text(
        "#!/bin/sh\necho 'GPU-aaa, NVIDIA GeForce RTX 4090, 24564'\necho 'GPU-bbb, NVIDIA GeForce RTX 4090, 24564'\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}")
    offer = next(offer for offer in await local.offers() if offer.gpu_count)
    assert (offer.id, offer.gpu_type, offer.gpu_count) == ("local-nvidia-rtx-4090", "nvidia-rtx-4090", 2)
    shows = Workload(command=["sh", "-c", 'echo "GPUs $CUDA_VISIBLE_DEVICES"; exec sleep 1000'])
    marks = [Mark(INSTALLATION, new_token()) for _ in range(3)]
    wish: dict[str, Any] = {"workload": shows, "offer": Offer(id=offer.id), "gpu_count": 1}
    for mark in marks[:2]:
        await launched(mark, **wish)
    told = [list(await local.logs(str(mark), 1)) for mark in marks[:2]]
    assert sorted(told) == [["GPUs GPU-aaa"], ["GPUs GPU-bbb"]]
    with pytest.raises(NoCapacity):
        await local.launch(await here.request(marks[2], **wish))
    await gone(str(marks[0]))
    await launched(marks[2], **wish)
    without = Mark(INSTALLATION, new_token())
    await launched(without, workload=shows)
    assert list(await local.logs(str(without), 1)) == ["GPUs "]
