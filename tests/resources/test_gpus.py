"""GPU names as each source spells them, and which offers a wanted type takes."""

from __future__ import annotations

import gpuhunt  # type: ignore[import-untyped]  # it has no py.typed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cal_crds.gpu_models import MODELS, compact
from cal_crds.gpus import GPUType, matches, normalise

# Source, spelling, slug.
SPELLINGS = [
    ("nosana slug", "nvidia-3060", "nvidia-rtx-3060"),
    ("nosana slug", "nvidia-3090", "nvidia-rtx-3090"),
    ("nosana slug", "nvidia-3090-community", "nvidia-rtx-3090"),
    ("nosana slug", "nvidia-a100-80gb", "nvidia-a100-80gb"),
    ("nosana gpu_types", "NVIDIA GeForce RTX 3060 Ti", "nvidia-rtx-3060-ti"),
    ("nosana gpu_types", "NVIDIA GeForce RTX 4070 Ti SUPER", "nvidia-rtx-4070-ti-super"),
    ("akash", "rtx4090", "nvidia-rtx-4090"),
    ("akash", "rtxa6000", "nvidia-rtx-a6000"),
    ("akash", "rtx4000ada", "nvidia-rtx-4000-ada"),
    ("akash", "pro6000se", "nvidia-rtx-pro-6000"),
    ("akash attribute", "vendor/nvidia/model/a100/ram/80Gi/interface/sxm", "nvidia-a100-sxm-80gb"),
    ("runpod", "NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm-80gb"),
    ("runpod", "NVIDIA A100 80GB PCIe", "nvidia-a100-pcie-80gb"),
    ("runpod", "NVIDIA H100 80GB HBM3", "nvidia-h100-sxm-80gb"),
    ("runpod", "NVIDIA H100 NVL", "nvidia-h100-nvl-94gb"),
    ("runpod", "NVIDIA RTX 6000 Ada Generation", "nvidia-rtx-6000-ada"),
    ("runpod", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "nvidia-rtx-pro-6000"),
    ("runpod", "AMD Instinct MI300X OAM", "amd-mi300x"),
    ("vast", "RTX_4090", "nvidia-rtx-4090"),
    ("vast", "A100 SXM4", "nvidia-a100-sxm"),
    ("vast", "H100 SXM", "nvidia-h100-sxm-80gb"),
    ("lambda", "gpu_1x_a100_sxm4", "nvidia-a100-sxm"),
    ("lambda", "1x A100 (40 GB SXM4)", "nvidia-a100-sxm-40gb"),
    ("lambda", "8x Tesla V100 (16 GB)", "nvidia-v100-16gb"),
    ("skypilot", "A100-80GB", "nvidia-a100-80gb"),
    ("skypilot", "RTX6000-Ada", "nvidia-rtx-6000-ada"),
    ("skypilot", "V100-32GB", "nvidia-v100-32gb"),
    ("skypilot", "L40S", "nvidia-l40s"),
    ("gpuhunt", "H100NVL", "nvidia-h100-nvl-94gb"),
    ("gpuhunt", "RTX6000Ada", "nvidia-rtx-6000-ada"),
    ("tensordock", "h100-sxm5-80gb", "nvidia-h100-sxm-80gb"),
    ("tensordock", "geforcertx4090-pcie-24gb", "nvidia-rtx-4090"),
    ("prime", "H100_80GB", "nvidia-h100-80gb"),
    ("hyperbolic", "NVIDIA-H100-80GB-HBM3", "nvidia-h100-sxm-80gb"),
    ("gfd", "NVIDIA-GeForce-RTX-4090", "nvidia-rtx-4090"),
    ("gfd, time slices", "NVIDIA-GeForce-RTX-4090-SHARED", "nvidia-rtx-4090"),
    ("gfd, old", "Tesla-T4", "nvidia-t4"),
    ("gfd, MIG", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia-a100-sxm-mig-1g-5gb"),
    ("amd labeller", "AMD_Instinct_MI300X_OAM", "amd-mi300x"),
    ("driver", "NVIDIA GH200 480GB", "nvidia-gh200"),
    ("driver", "Quadro RTX 6000", "nvidia-rtx-6000"),
    ("driver", "Tesla V100-SXM2-16GB", "nvidia-v100-sxm-16gb"),
    ("driver", "NVIDIA A40", "nvidia-a40"),
    ("person", "rtx 3090", "nvidia-rtx-3090"),
    ("person", "3080 ti", "nvidia-rtx-3080-ti"),
    ("person", "a6000", "nvidia-rtx-a6000"),
    ("person", "RTX 4090 48GB", "nvidia-rtx-4090-48gb"),
    ("person", "radeon rx 7900 xtx", "amd-rx-7900-xtx"),
]


@pytest.mark.parametrize(("source", "raw", "slug"), SPELLINGS, ids=str)
def test_a_spelling_has_its_slug(source: str, raw: str, slug: str) -> None:
    found = normalise(raw)
    assert (found.slug, found.known) == (slug, True), source


@pytest.mark.parametrize(
    ("raw", "memory_mib", "slug", "memory_gb"),
    [
        ("A100", 40960, "nvidia-a100-40gb", 40),
        ("A100", 81920, "nvidia-a100-80gb", 80),
        ("A10G", 22888, "nvidia-a10g", 24),
        ("NVIDIA H100 80GB HBM3", 81559, "nvidia-h100-sxm-80gb", 80),
        ("Tesla-T4", 15360, "nvidia-t4", 16),
        ("NVIDIA-GeForce-RTX-3060", 12288, "nvidia-rtx-3060-12gb", 12),
        ("NVIDIA B200", 183359, "nvidia-b200", 180),
        ("NVIDIA GH200 480GB", 97871, "nvidia-gh200-96gb", 96),
        ("RTX 4090", 49140, "nvidia-rtx-4090-48gb", 48),
    ],
)
def test_reported_memory_is_taken_for_the_size_on_the_data_sheet(
    raw: str, memory_mib: int, slug: str, memory_gb: int
) -> None:
    found = normalise(raw, memory_mib)
    assert (found.slug, found.memory_gb) == (slug, memory_gb)


def test_the_parts_stand_by_themselves() -> None:
    assert normalise("NVIDIA A100-SXM4-80GB") == GPUType("nvidia-a100-sxm-80gb", "nvidia", "a100", 80, "sxm", True)


@pytest.mark.parametrize(
    "raw",
    ["NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 6090", "A1000000", "amd a100", "", "nvidia", "カード", "TPU v5e"],
)
def test_what_the_table_does_not_know_is_not_guessed_at(raw: str) -> None:
    assert not normalise(raw).known


@pytest.mark.parametrize("name", ["A6000", "RTX 6000 Ada", "RTX 6000", "RTX PRO 6000"])
def test_four_cards_that_sound_alike_stay_apart(name: str) -> None:
    others = {"A6000", "RTX 6000 Ada", "RTX 6000", "RTX PRO 6000"} - {name}
    assert not any(matches(name, other) for other in others)


# Wanted, offered, the offer's memory, taken?
MATCHES = [
    ("rtx3090", "NVIDIA GeForce RTX 3090", 24, True),
    ("RTX 3090", "nvidia-3090", None, True),
    ("nvidia-3090", "rtx3090", None, True),
    ("rtx3090", "RTX 3090 Ti", 24, False),
    ("a100", "NVIDIA A100-SXM4-40GB", None, True),
    ("a100", "A100", 80, True),
    ("a100-80gb", "A100", 80, True),
    ("a100-80gb", "A100", 79, True),
    ("a100-80gb", "A100", 40, False),
    ("a100-80gb", "nvidia-a100-sxm-40gb", 40, False),
    ("a100-80gb", "A100", None, False),
    ("a100-sxm", "nvidia-a100-sxm-80gb", 80, True),
    ("a100-sxm", "nvidia-a100-pcie-80gb", 80, False),
    ("a100-sxm", "A100", 80, False),
    ("a100", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 5, False),
    ("h100", "NVIDIA H100 NVL", 94, True),
    ("l40", "L40S", 48, False),
    ("l4", "L40", 48, False),
    ("mi300x", "AMD_Instinct_MI300X_OAM", 192, True),
    ("rtx-6090", "NVIDIA GeForce RTX 6090", 48, True),
    ("amd-a100", "A100", 80, False),
    ("", "A100", 80, False),
    ("カード", "グラフィック", None, False),
]


@pytest.mark.parametrize(("wanted", "offered", "memory", "taken"), MATCHES)
def test_which_offers_a_wanted_type_takes(wanted: str, offered: str, memory: int | None, taken: bool) -> None:
    assert matches(wanted, offered, memory) is taken


@given(st.one_of(st.text(max_size=60), st.sampled_from([raw for _, raw, _ in SPELLINGS])))
def test_a_slug_is_its_own_slug(raw: str) -> None:
    once = normalise(raw)
    assert normalise(once.slug).slug == once.slug
    assert len(once.slug) <= 128


@given(st.sampled_from([slug for _, _, slug in SPELLINGS]), st.sampled_from([" ", "-", "_", "", "/"]))
def test_case_and_separators_say_nothing(slug: str, separator: str) -> None:
    vendor, _, rest = slug.partition("-")
    if separator == "" and "gb" in rest:
        return
    spelt = f"{vendor} {rest.replace('-', separator)}".upper()
    assert normalise(spelt).model == normalise(slug).model


def test_every_model_is_found_by_its_own_name_and_names_are_unique() -> None:
    names = [name for model in MODELS for name in (compact(model.name), *model.aliases)]
    assert len(names) == len(set(names))
    for model in MODELS:
        found = normalise(f"{model.vendor} {model.name}")
        assert (found.model, found.vendor, found.known) == (model.name, model.vendor, True)


#: Where gpuhunt's table has another size than the data sheet (and than the driver reports).
DISAGREE = {("MI308X", 128), ("MI325X", 288)}


def test_gpuhunt_agrees() -> None:
    known = [*gpuhunt.KNOWN_NVIDIA_GPUS, *gpuhunt.KNOWN_AMD_GPUS]
    assert len(known) > 70
    for card in known:
        found = normalise(card.name, card.memory * 1024)
        assert found.known, card.name
        model = next(model for model in MODELS if model.name == found.model)
        assert (found.memory_gb in model.memories) is ((card.name, card.memory) not in DISAGREE), card
