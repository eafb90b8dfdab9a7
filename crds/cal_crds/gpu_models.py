"""The table of GPU models: what `gpus` knows by name. Memory is nominal, in GB, as the data sheets say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class GPUModel:
    """One model. `forms` maps each form factor that it is told apart by to the memory sizes sold in it."""

    vendor: str
    name: str
    memories: tuple[int, ...]
    forms: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


def compact(name: str) -> str:
    """A name without anything but letters and digits: the key of the table."""
    return "".join(character for character in name.lower() if character.isascii() and character.isalnum())


def _geforce(number: str, *memories: int) -> GPUModel:
    """A consumer card: "4070-ti" is rtx-4070-ti, and known by its bare number too (that is how some markets call it)."""
    return GPUModel("nvidia", f"rtx-{number}", memories, aliases=(compact(number),))


def _gtx(number: str, *memories: int) -> GPUModel:
    return GPUModel("nvidia", f"gtx-{number}", memories, aliases=(compact(number),))


def _nvidia(name: str, *memories: int, aliases: tuple[str, ...] = (), **forms: tuple[int, ...]) -> GPUModel:
    return GPUModel("nvidia", name, memories, forms, aliases)


def _amd(name: str, *memories: int, aliases: tuple[str, ...] = ()) -> GPUModel:
    return GPUModel("amd", name, memories, aliases=aliases)


_DATA_CENTRE: Final = (
    _nvidia("a2", 16),
    _nvidia("a10", 24),
    _nvidia("a10g", 24),
    _nvidia("a16", 16),
    _nvidia("a30", 24),
    _nvidia("a40", 48),
    _nvidia("a100", 40, 80, sxm=(40, 80), pcie=(40, 80)),
    _nvidia("a100x", 80),
    _nvidia("a800", 40, 80, sxm=(80,), pcie=(40, 80)),
    _nvidia("h100", 80, 94, sxm=(80,), pcie=(80,), nvl=(94,)),
    _nvidia("h800", 80, 94, sxm=(80,), pcie=(80,), nvl=(94,)),
    _nvidia("h20", 96, 141),
    _nvidia("h200", 141, sxm=(141,), nvl=(141,)),
    _nvidia("gh200", 96, 144),
    _nvidia("b100", 192),
    _nvidia("b200", 180),
    _nvidia("gb200", 186),
    _nvidia("b300", 288),
    _nvidia("gb300", 288),
    _nvidia("k80", 12),
    _nvidia("l4", 24),
    _nvidia("l40", 48),
    _nvidia("l40s", 48),
    _nvidia("m60", 8),
    _nvidia("p4", 8),
    _nvidia("p40", 24),
    _nvidia("p100", 12, 16, sxm=(16,), pcie=(12, 16)),
    _nvidia("t4", 16),
    _nvidia("t4g", 16),
    _nvidia("v100", 16, 32, sxm=(16, 32), pcie=(16, 32)),
    _nvidia("v100s", 32),
)
# RTX 6000 (Turing), RTX A6000 (Ampere), RTX 6000 Ada and RTX PRO 6000 (Blackwell) are four different cards.
_WORKSTATION: Final = (
    _nvidia("rtx-a2000", 6, 12, aliases=("a2000",)),
    _nvidia("rtx-a4000", 16, aliases=("a4000",)),
    _nvidia("rtx-a4500", 20, aliases=("a4500",)),
    _nvidia("rtx-a5000", 24, aliases=("a5000",)),
    _nvidia("rtx-a5500", 24, aliases=("a5500",)),
    _nvidia("rtx-a6000", 48, aliases=("a6000",)),
    _nvidia("rtx-4000", 8),
    _nvidia("rtx-5000", 16),
    _nvidia("rtx-6000", 24),
    _nvidia("rtx-8000", 48),
    _nvidia("rtx-2000-ada", 16, aliases=("2000ada",)),
    _nvidia("rtx-4000-ada", 20, aliases=("4000ada",)),
    _nvidia("rtx-4000-sff-ada", 20),
    _nvidia("rtx-4500-ada", 24, aliases=("4500ada",)),
    _nvidia("rtx-5000-ada", 32, aliases=("5000ada",)),
    _nvidia("rtx-5880-ada", 48, aliases=("5880ada",)),
    _nvidia("rtx-6000-ada", 48, aliases=("6000ada", "a6000ada")),
    _nvidia("rtx-pro-2000", 16, aliases=("pro2000",)),
    _nvidia("rtx-pro-4000", 24, aliases=("pro4000",)),
    _nvidia("rtx-pro-4500", 32, aliases=("pro4500",)),
    _nvidia("rtx-pro-5000", 48, 72, aliases=("pro5000",)),
    _nvidia("rtx-pro-6000", 96, aliases=("pro6000", "pro6000se", "pro6000we")),
    _nvidia("rtx-pro-6000-max-q", 96, aliases=("pro6000maxq",)),
    _nvidia("titan-rtx", 24),
    _nvidia("titan-v", 12),
    _nvidia("titan-xp", 12),
)
_CONSUMER: Final = (
    _gtx("1060", 3, 6),
    _gtx("1070", 8),
    _gtx("1070-ti", 8),
    _gtx("1080", 8),
    _gtx("1080-ti", 11),
    _gtx("1650", 4),
    _gtx("1660", 6),
    _gtx("1660-super", 6),
    _gtx("1660-ti", 6),
    _geforce("2060", 6, 12),
    _geforce("2060-super", 8),
    _geforce("2070", 8),
    _geforce("2070-super", 8),
    _geforce("2080", 8),
    _geforce("2080-super", 8),
    _geforce("2080-ti", 11),
    _geforce("3050", 6, 8),
    _geforce("3060", 8, 12),
    _geforce("3060-ti", 8),
    _geforce("3070", 8),
    _geforce("3070-ti", 8),
    _geforce("3080", 10, 12),
    _geforce("3080-ti", 12),
    _geforce("3090", 24),
    _geforce("3090-ti", 24),
    _geforce("4060", 8),
    _geforce("4060-ti", 8, 16),
    _geforce("4070", 12),
    _geforce("4070-super", 12),
    _geforce("4070-ti", 12),
    _geforce("4070-ti-super", 16),
    _geforce("4080", 16),
    _geforce("4080-super", 16),
    _geforce("4090", 24),
    _geforce("4090-d", 24),
    _geforce("5050", 8),
    _geforce("5060", 8),
    _geforce("5060-ti", 8, 16),
    _geforce("5070", 12),
    _geforce("5070-ti", 16),
    _geforce("5080", 16),
    _geforce("5090", 32),
    _geforce("5090-d", 32),
)
_OTHERS: Final = (
    _amd("mi50", 16, 32),
    _amd("mi60", 32),
    _amd("mi100", 32),
    _amd("mi210", 64),
    _amd("mi250", 128),
    _amd("mi250x", 128),
    _amd("mi300a", 128),
    _amd("mi300x", 192),
    _amd("mi308x", 192),
    _amd("mi325x", 256),
    _amd("mi350x", 288),
    _amd("mi355x", 288),
    _amd("rx-6900-xt", 16),
    _amd("rx-7900-xt", 20),
    _amd("rx-7900-xtx", 24),
    _amd("rx-9070-xt", 16),
    _amd("w7800", 32, 48, aliases=("prow7800",)),
    _amd("w7900", 48, aliases=("prow7900",)),
    GPUModel("intel", "arc-a770", (16,)),
    GPUModel("intel", "arc-b580", (12,)),
    GPUModel("intel", "gaudi", (32,)),
    GPUModel("intel", "gaudi-2", (96,)),
    GPUModel("intel", "gaudi-3", (128,)),
    GPUModel("intel", "max-1100", (48,), aliases=("datacentermax1100",)),
    GPUModel("intel", "max-1550", (128,), aliases=("datacentermax1550",)),
)

#: All of them.
MODELS: Final = (*_DATA_CENTRE, *_WORKSTATION, *_CONSUMER, *_OTHERS)
#: Compact name or alias -> model.
BY_NAME: Final[Mapping[str, GPUModel]] = MappingProxyType(
    {name: model for model in MODELS for name in (compact(model.name), *model.aliases)}
)
