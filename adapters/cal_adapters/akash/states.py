"""What a deployment with a lease does, in the contract's words. Pure."""

from __future__ import annotations

import re
from typing import Final

from cal_adapters.akash.outcome import quoted
from cal_adapters.akash.sdl import read_service
from cal_adapters.akash.translate import Rates, created
from cal_adapters.akash.wire import Deployment, Lease, ServiceStatus
from cal_adapters.contract import Observation, State

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
#: Why a lease ended, where it was the provider's doing: the names, and the numbers 10000 to 19999.
_PROVIDERS_DOING: Final = re.compile(r"unstable|decommission|unspecified|manifest_timeout|reclaim|\b1[0-9]{4}\b")
#: Why a lease ended, where it was its owner's: the name, and the numbers below 10000.
_OWNERS_DOING: Final = re.compile(r"closed_(reason_)?owner|\b[1-9][0-9]{0,3}\b")
#: Why a lease ended, where it was the escrow's: the name, and the numbers from 20000.
_NO_MONEY: Final = re.compile(r"insufficient_funds|\b2[0-9]{4}\b")


def current(deployment: Deployment) -> Lease | None:
    """The lease that counts: the one that isn't closed, else the latest."""
    leases = sorted(deployment.leases, key=lambda lease: (lease.state != "closed", lease.id.gseq, lease.id.oseq))
    return leases[-1] if leases else None


def observed(deployment: Deployment, lease: Lease, rates: Rates) -> Observation:
    """What a deployment that has, or had, a lease does."""
    state, message = _state(deployment, lease)
    return Observation(
        state=state,
        message=message,
        id=deployment.deployment.id.dseq,
        endpoint=_endpoint(lease) if state is State.RUNNING else None,
        started=created(deployment.deployment.id.dseq),
        price_per_hour=rates.per_hour(lease.price),
        node_address=lease.id.provider,
    )


def _state(deployment: Deployment, lease: Lease) -> tuple[State, str]:
    if deployment.deployment.state == "closed":
        return _ended(lease, State.TERMINATED, "the deployment was closed")
    if deployment.deployment.state != "active":
        return State.UNKNOWN, f"Akash says that the deployment is {quoted(deployment.deployment.state)!r}"
    match lease.state:
        case "active":
            return _serving(lease)
        case "reclaiming":
            return _reclaimed(lease)
        case "insufficient_funds":
            return State.TERMINATED, "the deployment's escrow ran out: the lease is insufficient_funds"
        case "closed":
            return _ended(lease, State.LOST, "the provider closed the lease")
        case word:
            return State.UNKNOWN, f"Akash says that the lease is {quoted(word)!r}"


def _serving(lease: Lease) -> tuple[State, str]:
    if lease.status is None:
        return State.UNKNOWN, "the lease is active; its provider doesn't say just now how the workload does"
    service = _service(lease)[1]
    if service is None:
        return State.STARTING, "the lease is active; its provider has not started the workload yet"
    if service.available < 1:
        return State.STARTING, f"{service.available} of {service.total} containers are up"
    return State.RUNNING, "active"


def _service(lease: Lease) -> tuple[str | None, ServiceStatus | None]:
    """Our one service, by name, and how it does."""
    services = (lease.status.services or {}) if lease.status is not None else {}
    return next(((name, service) for name, service in services.items() if read_service(name)), (None, None))


def _reclaimed(lease: Lease) -> tuple[State, str]:
    """Until the notice is over the workload runs, and is paid for, as before; one that is down won't come back."""
    note = lease.reclamation
    until = f" until {quoted(str(note.deadline))}" if note is not None and note.deadline is not None else ""
    why = f" ({quoted(note.reason)})" if note is not None and note.reason else ""
    state, _ = _serving(lease)
    if state is State.RUNNING or lease.status is None:
        return state, f"the provider takes its machine back{why}: the lease is reclaiming{until}, then it ends"
    return State.LOST, f"the provider takes its machine back{why}, and the workload is down"


def _ended(lease: Lease, otherwise: State, default: str) -> tuple[State, str]:
    reason = lease.reason or ""
    told = f"{default} ({quoted(reason)})" if reason else default
    if _PROVIDERS_DOING.search(reason):
        return State.LOST, told
    ended = _OWNERS_DOING.search(reason) or _NO_MONEY.search(reason) or lease.state == "insufficient_funds"
    return (State.TERMINATED if ended else otherwise), told


def _endpoint(lease: Lease) -> str | None:
    """Where the first port answers. Host names are the provider's words: nothing but a host name is taken."""
    name, service = _service(lease)
    first = read_service(name) if name else None
    if name is None or first is None or service is None or lease.status is None:
        return None
    scheme, port = first
    if scheme != "tcp":
        return next((f"{scheme}://{uri}" for uri in service.uris or () if _HOST.fullmatch(uri)), None)
    for forwarded in (lease.status.forwarded_ports or {}).get(name) or ():
        if forwarded.port == port and forwarded.host and _HOST.fullmatch(forwarded.host):
            return f"{scheme}://{forwarded.host}:{forwarded.external_port}"
    return None
