"""The `k8s` adapter: one Pod (and Service) per instance, in the operator's own cluster or in another one by a kubeconfig."""

from __future__ import annotations

from cal_adapters.k8s.adapter import create

__all__ = ["create"]
