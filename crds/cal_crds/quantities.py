"""Kubernetes quantities as numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_FACTORS: Final = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}


def parse(text: str) -> Decimal:
    """The number that a quantity like "4", "500m" or "16Gi" stands for: CPUs, or bytes. ValueError if it is none."""
    number = text.rstrip("mkKMGTi")
    suffix = text[len(number) :]
    if suffix and suffix not in _FACTORS:
        raise ValueError(f"{text!r} is not a quantity: the suffix {suffix!r} is none of {sorted(_FACTORS)}")
    return Decimal(number) * _FACTORS.get(suffix, Decimal(1))
