"""Between the contract's words and a folder of `local`: what to run, and what is seen of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from cal_adapters.contract import Instance, LaunchRequest, Mark, Observation, Readiness, State
from cal_adapters.errors import NoCapacity, Refused
from cal_adapters.local import kernel
from cal_adapters.local.home import PortWish, Request
from cal_adapters.local.logs import last_lines
from cal_adapters.local.machine import CPU_OFFER, Free, Machine, choose_cpus
from cal_adapters.local.store import Look
from cal_crds import quantities
from cal_crds.workload import PortProtocol, Resources

#: What a command gets of the operator's own environment: nothing that holds a secret.
ALLOWED: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "CAL_EXAMPLES"),
)
#: What it gets unless the workload says otherwise: lines as they are printed, and no GPU that isn't its own.
_DEFAULTS: Final = {"PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
_SCHEMES: Final = {PortProtocol.HTTP: "http", PortProtocol.WEBSOCKET: "ws", PortProtocol.TCP: "tcp"}
_LAST_LINES: Final = 10
_MESSAGE_LIMIT: Final = 2000


def to_run(
    wanted: LaunchRequest, machine: Machine, taken: Sequence[Request], environment: Mapping[str, str]
) -> tuple[Request, dict[str, str]]:
    """What to run, with CPUs and GPUs assigned. Raises Refused and NoCapacity."""
    workload = wanted.workload
    check(wanted, machine)
    millicpu, memory = _needs(workload.resources)
    free = Free.of(machine, taken)
    gpus = [gpu.uuid for gpu in free.gpus if wanted.offer.id == f"local-{gpu.slug}"][: wanted.gpu_count]
    if millicpu > free.millicpu or memory > free.memory or len(gpus) < wanted.gpu_count:
        raise NoCapacity(
            f"this machine has {Decimal(free.millicpu) / 1000} CPUs, {free.memory >> 20} MiB of memory"
            f" and {len(free.gpus)} GPUs left"
        )
    request = Request(
        mark=str(wanted.mark),
        argv=[*workload.command, *workload.args],
        created=time.time(),
        working_dir=workload.working_dir,
        ports=[PortWish(port.name, port.port, _SCHEMES[port.protocol]) for port in workload.ports],
        millicpu=millicpu,
        memory=memory,
        cpus=choose_cpus(machine, taken, millicpu),
        gpus=gpus,
    )
    own = {variable.name: variable.value for variable in wanted.env}
    return request, {**{name: environment[name] for name in ALLOWED if name in environment}, **_DEFAULTS, **own}


def check(wanted: LaunchRequest, machine: Machine) -> None:
    """Refused if this machine can never run it."""
    workload = wanted.workload
    if not workload.command:
        raise Refused("local runs commands, not images: give workload.command (REST configuration.entrypoint)")
    if any("\0" in text for text in (*workload.command, *workload.args, *(variable.value for variable in wanted.env))):
        raise Refused("a command, argument or variable holds a NUL character")
    if wanted.offer.id not in {CPU_OFFER, *(f"local-{gpu.slug}" for gpu in machine.gpus)}:
        raise Refused(f"this machine has no offer {wanted.offer.id!r}")
    millicpu, memory = _needs(workload.resources)
    gpus = sum(wanted.offer.id == f"local-{gpu.slug}" for gpu in machine.gpus)
    if millicpu > machine.millicpu or memory > machine.memory or wanted.gpu_count > gpus:
        raise Refused(
            f"this machine has {machine.millicpu // 1000} CPUs, {machine.memory >> 20} MiB of memory"
            f" and {gpus} GPUs of that type to offer in all"
        )


def _needs(resources: Resources | None) -> tuple[int, int]:
    """CPU in thousandths and memory in bytes; 0 where nothing is asked for."""
    if resources is None:
        return 0, 0
    cpu = quantities.parse(resources.cpu) if resources.cpu else Decimal(0)
    return int(cpu * 1000), int(quantities.parse(resources.memory)) if resources.memory else 0


def instance(look: Look, account: str) -> Instance:
    """The thing that runs, as the contract says it."""
    mark = look.request.mark
    return Instance(mark, mark, Mark.read(mark), account, Decimal(0), _moment(look.request.created))


def observation(look: Look) -> Observation:
    """What is seen of it just now. Reads /proc: blocking."""
    state, message = _state(look)
    endpoint, answers = _endpoint(look) if state is State.RUNNING else (None, False)
    readiness = Readiness.NO
    if state is State.RUNNING and not look.stopped:
        readiness = Readiness.YES if not look.request.ports else Readiness.PROBE if answers else Readiness.NO
    return Observation(
        state=state,
        message=message,
        endpoint=endpoint,
        readiness=readiness,
        exit_code=look.record.exit_code if look.ended and look.record is not None else None,
        started=_moment(look.record.started) if look.record is not None and look.record.started else None,
        price_per_hour=Decimal(0),
        node_address=socket.gethostname(),
    )


def _state(look: Look) -> tuple[State, str]:
    record = look.record
    if look.alive is not None:
        if record is None or record.state != "running":
            return State.STARTING, "starting"
        return State.RUNNING, "stopping" if look.stopped else f"running as process {record.pid}"
    if look.ended and record is not None:
        return _ending(look)
    if look.stopped:
        return State.TERMINATED, "stopped"
    if look.lost:
        return State.LOST, "the process that watched it was killed"
    return State.STARTING, "starting again after an interruption" if record is not None else "starting"


def _ending(look: Look) -> tuple[State, str]:
    record = look.record
    assert record is not None
    if record.cause == "stop":
        return State.TERMINATED, f"stopped ({record.message})"
    if record.exit_code == 0:
        return State.SUCCEEDED, record.message
    lines = last_lines(look.home, _LAST_LINES)
    told = "\n".join(lines)[-_MESSAGE_LIMIT:]
    return State.FAILED, f"{record.message}; its last lines:\n{told}" if told else record.message


def _endpoint(look: Look) -> tuple[str | None, bool]:
    """URL of the first port, and whether the workload itself listens there. One that doesn't read PORT and listens on the port
    of its spec is found there."""
    if look.record is None or not look.request.ports:
        return None, False
    first = look.request.ports[0]
    assigned = look.record.ports.get(first.name, first.declared)
    owned = kernel.listening(kernel.descendants(look.alive)) if look.alive else set()
    port = next((port for port in (assigned, first.declared) if port in owned), None)
    return f"{first.scheme}://127.0.0.1:{port or assigned}", port is not None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
