"""What this machine has to offer: CPUs, memory, GPUs; and what of it is still free."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cal_adapters.local.home import Request
from cal_crds import quantities
from cal_crds.gpus import normalise
from cal_crds.node import Offer
from cal_crds.provider import LocalSettings

CPU_OFFER: Final = "local-cpu"
_QUERY: Final = ("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
_QUERY_SECONDS: Final = 5.0


@dataclass(frozen=True)
class GPU:
    """One GPU. `slug` is its normalised type."""

    uuid: str
    slug: str
    memory_gb: int


@dataclass(frozen=True)
class Machine:
    """What may be used here: CPUs (their numbers), CPU in thousandths, memory in bytes, GPUs."""

    cpus: list[int]
    millicpu: int
    memory: int
    gpus: list[GPU]

    @classmethod
    def measure(cls, settings: LocalSettings) -> Machine:
        """This machine, within the settings. Runs nvidia-smi, if there is one: blocking, up to some seconds."""
        cpus = sorted(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        count = min(len(cpus), settings.max_cpu or len(cpus))
        if settings.max_memory is not None:
            memory = min(memory, int(quantities.parse(settings.max_memory)))
        return cls(cpus, count * 1000, memory, _gpus())


@dataclass(frozen=True)
class Free:
    """What of the machine no instance has asked for."""

    millicpu: int
    memory: int
    gpus: list[GPU]

    @classmethod
    def of(cls, machine: Machine, taken: Sequence[Request]) -> Free:
        used = {uuid for request in taken for uuid in request.gpus}
        return cls(
            max(0, machine.millicpu - sum(request.millicpu for request in taken)),
            max(0, machine.memory - sum(request.memory for request in taken)),
            [gpu for gpu in machine.gpus if gpu.uuid not in used],
        )


def offers(machine: Machine, free: Free) -> list[Offer]:
    """One offer without GPUs, and one per type of GPU, with what is free just now. Price 0."""
    vcpu, ram = free.millicpu // 1000, free.memory >> 30
    common = {"vcpu": vcpu, "ram_gb": ram, "region": "local", "machine": socket.gethostname(), "price_per_hour": "0"}
    found = [Offer(id=CPU_OFFER, **common)]
    for slug in sorted({gpu.slug for gpu in machine.gpus}):
        left = sum(gpu.slug == slug for gpu in free.gpus)
        memory = max(gpu.memory_gb for gpu in machine.gpus if gpu.slug == slug)
        here = {"gpu_type": slug, "gpu_count": left, "gpu_memory_gb": memory, "available": 1 if left else 0}
        found.append(Offer(id=f"local-{slug}", **common, **here))
    return found


def choose_cpus(machine: Machine, taken: Sequence[Request], millicpu: int) -> list[int]:
    """As many CPUs as are asked for, rounded up: those that the fewest others use. Empty (all) if nothing is asked for."""
    if not millicpu:
        return []
    uses = Counter(cpu for request in taken for cpu in request.cpus)
    return sorted(sorted(machine.cpus, key=lambda cpu: (uses[cpu], cpu))[: -(-millicpu // 1000)])


def _gpus() -> list[GPU]:
    """NVIDIA's, as its own tool tells; none where there is no tool or no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        told = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [_gpu(*fields) for line in told.stdout.splitlines() if len(fields := line.split(", ")) == 3]


def _gpu(uuid: str, name: str, memory: str) -> GPU:
    mib = int(memory) if memory.isdecimal() else None
    kind = normalise(name, mib)
    return GPU(uuid, kind.slug, kind.memory_gb or (mib or 0) >> 10)
