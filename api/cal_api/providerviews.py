"""ComputeProvider -> what REST shows of a provider: its twelve capabilities, its offers, and why they can't be told."""

from __future__ import annotations

from decimal import Decimal

from cal_api import replies
from cal_crds.conditions import Status, Type, condition
from cal_crds.node import Offer
from cal_crds.provider import Capabilities, ComputeProvider, Support


def capabilities_of(provider: ComputeProvider) -> Capabilities:
    """What the operator published; before it did: nothing is supported."""
    return provider.status.capabilities or Capabilities(adapter_type="unknown")


def provider(resource: ComputeProvider) -> replies.Provider:
    stated = capabilities_of(resource)
    able = frozenset(stated.supports)
    return replies.Provider(
        adapter_type=stated.adapter_type,
        capabilities=replies.Capabilities(
            supports_log_streaming=Support.LOG_STREAMING in able,
            supports_confidential_compute=Support.CONFIDENTIAL_COMPUTE in able,
            supports_spot_instances=Support.SPOT_INSTANCES in able,
            supports_multi_gpu=Support.MULTI_GPU in able,
            is_ephemeral=Support.EPHEMERAL in able,
            requires_readiness_poll=Support.READINESS_POLL in able,
            readiness_timeout_seconds=stated.readiness_timeout_seconds,
            polling_interval_seconds=stated.polling_interval_seconds,
            requires_sidecar=Support.SIDECAR in able,
            supports_direct_provisioning=Support.DIRECT_PROVISIONING in able,
            pricing_model=stated.pricing_model,
            features=dict.fromkeys(stated.features, True),
        ),
    )


def resources(resource: ComputeProvider) -> list[replies.Resource]:
    """Its offers, as the operator last saw them."""
    return [_offer(resource.metadata.name, offer) for offer in resource.status.offers]


def _offer(name: str, offer: Offer) -> replies.Resource:
    return replies.Resource(
        provider=name,
        provider_resource_id=offer.id,
        gpu_type=offer.gpu_type,
        gpu_count=offer.gpu_count,
        gpu_memory_gb=offer.gpu_memory_gb,
        vcpu=offer.vcpu,
        ram_gb=offer.ram_gb,
        region=offer.region,
        pricing_model=offer.pricing_model,
        price_per_hour=Decimal(offer.price_per_hour),
        available=offer.available,
        metadata={attribute.name: attribute.value for attribute in offer.attributes},
        provider_again=name,
    )


def problem(resource: ComputeProvider) -> replies.ProviderError | None:
    """Why its offers can't be told or may be old, if so."""
    status = resource.status
    message = status.offers_error
    if message is None and status.observed_generation < 0:
        message = "Not looked at yet: is the operator running?"
    for kind in (Type.REACHABLE, Type.READY):
        known = condition(status.conditions, kind)
        if message is None and known and known.status == Status.FALSE and not status.offers:
            message = known.message or known.reason
    return replies.ProviderError(provider=resource.metadata.name, error=message) if message else None
