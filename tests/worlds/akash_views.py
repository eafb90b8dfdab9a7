"""How the stand-in's Akash looks on the wire: the Console's answers, as of a moment."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from worlds.akash_state import BIDDERS, BLOCK, GPUS, Bid, Deployment, Lease, World

#: Made once, so that heights look like heights.
_GENESIS = 1_600_000_000


def height(moment: float) -> str:
    return str(int((moment - _GENESIS) / BLOCK))


def deployment(world: World, item: Deployment, at: float, *, status: bool, gateway: str) -> dict[str, Any]:
    """A deployment with its leases; `status` adds what the providers say."""
    lease = item.lease if item.lease is not None and item.lease.made <= at else None
    shown = [] if lease is None else [_lease(world, item, lease, at, status, gateway)]
    return {"deployment": head(item, at), "leases": shown, "escrow_account": escrow(item, at)}


def head(item: Deployment, at: float) -> dict[str, Any]:
    closed = item.closed is not None and item.closed <= at
    return {
        "id": {"owner": item.owner, "dseq": item.dseq},
        "state": "closed" if closed else "active",
        "hash": item.hash,
        "created_at": height(item.made),
    }


def escrow(item: Deployment, at: float) -> dict[str, Any]:
    closed = item.closed is not None and item.closed <= at
    funds = [{"denom": item.denom, "amount": "0" if closed else "500000.000000000000000000"}]
    state = {
        "owner": item.owner,
        "state": "closed" if closed else "open",
        "transferred": [],
        "settled_at": height(item.made),
        "funds": funds,
        "deposits": [],
    }
    return {"id": {"scope": "deployment", "xid": f"{item.owner}/{item.dseq}"}, "state": state}


def public(item: Deployment, at: float) -> dict[str, Any]:
    """What anybody sees: the chain's own record, with the groups' names."""
    groups = [
        {
            "id": {"owner": item.owner, "dseq": item.dseq, "gseq": number},
            "state": "open",
            "group_spec": {
                "name": name,
                "requirements": {"signed_by": {"all_of": [], "any_of": []}, "attributes": []},
                "resources": [],
            },
            "created_at": height(item.made),
        }
        for number, name in enumerate(item.groups, 1)
    ]
    whole = {"deployment": head(item, at), "groups": groups, "escrow_account": escrow(item, at)}
    return {
        "owner": item.owner,
        "dseq": item.dseq,
        "balance": 500000.0,
        "denom": item.denom,
        "status": head(item, at)["state"],
        "totalMonthlyCostUDenom": 0,
        "leases": [],
        "events": [],
        "other": whole,
    }


def bid(item: Deployment, made: Bid, at: float) -> dict[str, Any]:
    taken = item.lease is not None and item.lease.made <= at
    mine = item.lease is not None and item.lease.bid.provider == made.provider
    offered = {
        "cpu": {"units": {"val": "8000"}, "attributes": []},
        "memory": {"quantity": {"val": "34359738368"}, "attributes": []},
        "storage": [],
        "gpu": {"units": {"val": str(made.gpu["units"])}, "attributes": _gpu_attributes(made)},
        "endpoints": [],
    }
    shown = {
        "id": _id(item, made),
        "state": ("active" if mine else "lost") if taken else ("closed" if item.closed is not None else "open"),
        "price": {"denom": item.denom, "amount": _coin(made.amount)},
        "created_at": height(made.made),
        "resources_offer": [{"resources": offered, "count": 1}],
        **({"reclamation_window": "3600s"} if made.provider.reclaims else {}),
    }
    return {"bid": shown, "escrow_account": escrow(item, at)}


def _gpu_attributes(made: Bid) -> list[dict[str, str]]:
    if not made.gpu["units"]:
        return []
    words = [f"{name}/{made.gpu[name]}" for name in ("model", "ram", "interface") if made.gpu.get(name)]
    return [{"key": "/".join(["vendor/nvidia", *words]), "value": "true"}]


def _id(item: Deployment, made: Bid) -> dict[str, Any]:
    return {"owner": item.owner, "dseq": item.dseq, "gseq": 1, "oseq": 1, "provider": made.provider.address, "bseq": 0}


def _coin(amount: Decimal) -> str:
    return f"{amount:.18f}"


def _lease(world: World, item: Deployment, lease: Lease, at: float, status: bool, gateway: str) -> dict[str, Any]:
    ended = lease.ended is not None and lease.ended <= at
    shown: dict[str, Any] = {
        "id": _id(item, lease.bid),
        "state": "closed" if ended else lease.word or ("reclaiming" if lease.reclaimed is not None else "active"),
        "price": {"denom": item.denom, "amount": _coin(lease.bid.amount)},
        "created_at": height(lease.made),
        "closed_on": height(lease.ended) if ended and lease.ended is not None else "0",
    }
    if ended and lease.reason:
        shown["reason"] = lease.reason
    if lease.reclaimed is not None:
        shown["reclamation"] = {"deadline": str(int(lease.reclaimed)), "reason": "lease_closed_reason_decommission"}
    if status:
        told = not ended and lease.handed is not None and lease.seen
        shown["status"] = lease.said or _status(world, item, lease, at, gateway) if told else None
    return shown


def _status(world: World, item: Deployment, lease: Lease, at: float, gateway: str) -> dict[str, Any]:
    up = lease.up and lease.handed is not None and at >= lease.handed + world.start_seconds
    ingress = [port for port in item.ports if port.get("as") == 80]
    service = {
        "name": item.service,
        "available": int(up),
        "total": 1,
        "uris": [gateway] if ingress else None,
        "observed_generation": 1,
        "replicas": 1,
        "updated_replicas": 1,
        "ready_replicas": int(up),
        "available_replicas": int(up),
    }
    host = f"{lease.bid.provider.name}.provider.invalid"
    forwarded = [
        {
            "host": host,
            "port": port["port"],
            "externalPort": 30000 + port["port"] % 2000,
            "proto": "TCP",
            "name": item.service,
        }
        for port in item.ports
        if port.get("as") != 80
    ]
    return {
        "services": {item.service: service},
        "forwarded_ports": {item.service: forwarded} if forwarded else {},
        "ips": {},
    }


def prices(world: World) -> dict[str, Any]:
    used: dict[str, int] = {}
    for item in world.deployments.values():
        if item.lease is not None and item.lease.ended is None:
            taken = item.lease.bid.gpu
            used[taken.get("model", "")] = used.get(taken.get("model", ""), 0) + taken["units"]
    models: list[dict[str, Any]] = []
    for gpu in GPUS:
        low = float(gpu.price)
        free = {"total": gpu.total, "available": max(gpu.total - used.get(gpu.model, 0), 0)}
        price = {
            "currency": "USD",
            "min": low,
            "max": low * 1.5,
            "avg": low * 1.2,
            "weightedAverage": low * 1.2,
            "med": low * 1.1,
        }
        models.append(
            {"vendor": "nvidia", "model": gpu.model, "ram": gpu.ram, "interface": gpu.interface,
             "availability": free, "providerAvailability": {"total": len(BIDDERS), "available": len(BIDDERS)}, "price": price}
        )  # fmt: skip
    models.append(
        {"vendor": "nvidia", "model": "unpriced", "ram": "8Gi", "interface": "PCIe",
         "availability": {"total": 1, "available": 1}, "providerAvailability": {"total": 1, "available": 1}, "price": None}
    )  # fmt: skip
    return {"availability": {"total": 145, "available": 145}, "models": models}


def provider(who: str, gateway: str) -> dict[str, Any] | None:
    known = next((bidder for bidder in BIDDERS if bidder.address == who), None)
    if known is None:
        return None
    return {"owner": who, "name": known.name, "hostUri": f"{gateway}/{known.name}", "isOnline": True, "isAudited": True}
