"""GPU names: every provider spells them its own way, and a pool's owner in another; here they become one slug.

The slug is `vendor-model[-form][-NNgb]`, like `nvidia-rtx-4090` or `nvidia-a100-sxm-80gb`: the form where the model comes in several,
the memory where it comes in several sizes. A name that the table doesn't know is never guessed at: its slug is the name itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cal_crds.gpu_models import BY_NAME, GPUModel
from cal_crds.names import slug

#: Vendors count in MiB and keep some for themselves: sizes this near to each other are the same.
_TOLERANCE: Final = 0.07
_VENDORS: Final = {
    "nvidia": "nvidia", "geforce": "nvidia", "tesla": "nvidia", "quadro": "nvidia",
    "amd": "amd", "instinct": "amd", "radeon": "amd",
    "intel": "intel", "habana": "intel",
}  # fmt: skip
#: Words that name no model. "480gb" is the memory of the processor beside a GH200, not the GPU's.
_NOISE: Final = frozenset(
    {
        "gpu", "gpus", "corporation", "generation", "edition", "workstation", "server", "blackwell", "graphics",
        "accelerator", "tensor", "core", "card", "oam", "vendor", "model", "ram", "interface",
        "fhhl", "community", "premium", "shared", "se", "480gb",
    }
)  # fmt: skip
_MIG: Final = re.compile(r"mig[-_. ]?(\d+)g[-_. ](\d+)gb")
_MEMORY: Final = re.compile(r"(\d+)(?:gb|gib|gi|g)")
_COUNT: Final = re.compile(r"\d+x")
_FORM: Final = re.compile(r"(sxm|pcie|nvl)\d?")
_GLUED_BRAND: Final = re.compile("^(?:" + "|".join(_VENDORS) + ")+(?=.)")
_GLUED_FORM: Final = re.compile(r"(sxm|pcie|nvl)\d?$")
_HBM: Final = re.compile(r"hbm(\d)e?")


@dataclass(frozen=True)
class GPUType:
    """A GPU by its parts. `memory_gb` is nominal and per GPU. Not `known`: the table has no such model, the slug is the raw name."""

    slug: str
    vendor: str | None
    model: str
    memory_gb: int | None = None
    form: str | None = None
    known: bool = True


@dataclass
class _Words:
    """What a raw name says, word by word."""

    vendor: str | None = None
    memory: int | None = None
    form: str | None = None
    hbm: str | None = None
    mig: str | None = None
    mig_memory: int | None = None
    rest: str = ""


def normalise(raw: str, memory_mib: int | None = None) -> GPUType:
    """The type behind any spelling; `memory_mib` is what the provider reports beside the name, if it does."""
    words = _read(raw)
    memory = memory_mib / 1024 if memory_mib else words.memory
    model = BY_NAME.get(words.rest)
    if model is None or words.vendor not in (None, model.vendor):
        return GPUType(slug(raw, 128), words.vendor, words.rest or raw, round(memory) if memory else None, known=False)
    if words.mig:
        return _slice(model, words)
    return _known(model, _form(model, words), memory)


def matches(wanted: str, offered: str, offered_memory_gb: int | None = None) -> bool:
    """Whether an offered GPU is one of the wanted type. What `wanted` leaves open (form, memory) may be anything."""
    asked, have = _read(wanted), normalise(offered, offered_memory_gb * 1024 if offered_memory_gb else None)
    want = normalise(wanted)
    if want.model != have.model or want.vendor not in (None, have.vendor) or want.form not in (None, have.form):
        return False
    return asked.memory is None or (have.memory_gb is not None and _near(asked.memory, have.memory_gb))


def _read(raw: str) -> _Words:
    words, rest = _Words(), []
    lower = raw.lower()
    if found := _MIG.search(lower):
        words.mig, words.mig_memory = f"mig-{found[1]}g-{found[2]}gb", int(found[2])
        lower = lower.replace(found[0], " ")
    # "80 GB" is one word.
    lower = re.sub(r"(?<=\d)\s+(?=gi?b\b)", "", lower)
    for word in re.findall(r"[a-z0-9]+", lower):
        if not _note(words, word):
            rest.append(word)
    words.rest = _unglue(words, "".join(rest))
    return words


def _note(words: _Words, word: str) -> bool:
    """Takes a word for what it says; False if it is part of the model's name."""
    if word in _VENDORS:
        words.vendor = words.vendor or _VENDORS[word]
    elif found := _FORM.fullmatch(word):
        words.form = found[1]
    elif found := _HBM.fullmatch(word):
        words.hbm = found[1]
    elif word in _NOISE or _COUNT.fullmatch(word):
        pass
    elif found := _MEMORY.fullmatch(word):
        words.memory = int(found[1])
    else:
        return False
    return True


def _unglue(words: _Words, name: str) -> str:
    """Without a brand before it or a form behind it that were written as one word with the model."""
    if name not in BY_NAME and (found := _GLUED_BRAND.match(name)):
        words.vendor = words.vendor or next(vendor for brand, vendor in _VENDORS.items() if name.startswith(brand))
        name = name[found.end() :]
    if name not in BY_NAME and (found := _GLUED_FORM.search(name)) and name[: found.start()] in BY_NAME:
        words.form, name = words.form or found[1], name[: found.start()]
    return name


def _form(model: GPUModel, words: _Words) -> str | None:
    """The form, where the model is told apart by it. "H100 80GB HBM3" is how the driver calls the SXM board."""
    if words.form is None and model.name == "h100" and words.hbm == "3":
        return "sxm"
    return words.form if words.form in model.forms else None


def _known(model: GPUModel, form: str | None, reported: float | None) -> GPUType:
    sizes = model.forms[form] if form else model.memories
    memory = _nominal(reported, sizes) if reported else (sizes[0] if len(sizes) == 1 else None)
    telling = memory is not None and (len(model.memories) > 1 or memory not in model.memories)
    parts = [model.vendor, model.name, *([form] if form else []), *([f"{memory}gb"] if telling else [])]
    return GPUType("-".join(parts), model.vendor, model.name, memory, form)


def _slice(model: GPUModel, words: _Words) -> GPUType:
    """A part of a GPU: another type than the whole one."""
    form = _form(model, words)
    name = "-".join([model.vendor, model.name, *([form] if form else []), str(words.mig)])
    return GPUType(name, model.vendor, f"{model.name}-{words.mig}", words.mig_memory, form)


def _nominal(reported: float, sizes: tuple[int, ...]) -> int:
    """The size as the data sheet has it; the reported one where no such size is sold."""
    nearest = min(sizes, key=lambda size: abs(size - reported))
    return nearest if _near(nearest, reported) else round(reported)


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _TOLERANCE * max(a, b)
