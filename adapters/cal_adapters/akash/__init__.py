"""The adapter `akash`: leases of the Akash Network, through the Console API and a managed wallet."""

from __future__ import annotations

from cal_adapters.akash.adapter import AkashAdapter, create

__all__ = ["AkashAdapter", "create"]
