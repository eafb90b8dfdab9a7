"""Between the contract's words and Nosana's, both ways. Pure: no I/O, time is a parameter.

A workload becomes a job definition 0.1 as data; no string is ever put together from a user's words. A market becomes an offer,
a deployment and its jobs become an observation (`states.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, NewType

from cal_adapters.contract import Instance, LaunchRequest, Mark, RegistryLogin
from cal_adapters.errors import Refused
from cal_adapters.nosana.answers import Deployment, Market
from cal_crds.gpus import normalise
from cal_crds.money import render
from cal_crds.node import Offer, OfferAttribute
from cal_crds.workload import Port, PortProtocol, Probe

#: A deployment's timeout is in minutes, all else of Nosana's in seconds.
Minutes = NewType("Minutes", int)

#: The only operation of our job definitions.
OPERATION: Final = "main"
#: SIMPLE ends with its first job's timeout; this one is extended by Nosana until it is stopped.
STRATEGY: Final = "SIMPLE-EXTEND"
_HANDLE: Final = re.compile(r"([0-9A-Za-z]{1,64})/([0-9A-Za-z]{1,64})/([0-9]{1,11})")
#: What a host replaces in strings of a job definition, or takes for an instruction in a list.
_TEMPLATE: Final = re.compile(r"%%(ops|globals?)\.|^__(spread__|remove-if-empty__)$")


# --- handles -------------------------------------------------------------------------------------------------------------


class Handle(NamedTuple):
    """What our handles hold: whose "not found" counts for which deployment, and from when on."""

    owner: str
    deployment: str
    created: datetime


def handle_of(deployment: Deployment) -> str:
    """A deployment's handle. It never changes."""
    return f"{deployment.owner}/{deployment.id}/{int(deployment.created_at.timestamp())}"


def read_handle(handle: str) -> Handle:
    """The parts of a handle. Refused if it isn't ours."""
    found = _HANDLE.fullmatch(handle)
    if found is None:
        raise Refused(f"not a handle of the nosana adapter: {handle[:64]!r}")
    return Handle(found[1], found[2], datetime.fromtimestamp(int(found[3]), UTC))


def instance_of(deployment: Deployment, price: Decimal | None = None) -> Instance:
    """A deployment as an instance. Its id is the deployment's until a job is known."""
    return Instance(
        handle=handle_of(deployment),
        id=deployment.id,
        mark=Mark.read(deployment.name),
        account=deployment.owner,
        price_per_hour=price,
    )


def may_bill(deployment: Deployment) -> bool:
    """Whether it costs money or can still come to. Only an archived one can't; one that was archived over its jobs' heads can."""
    return deployment.status != "ARCHIVED" or deployment.active_jobs > 0


# --- markets -------------------------------------------------------------------------------------------------------------


def price_of(market: Market) -> Decimal | None:
    """US dollars per hour with the network's fee; None if the market doesn't tell."""
    try:
        reward = Decimal(str(market.usd_reward_per_hour))
    except InvalidOperation:
        return None
    if not reward.is_finite() or not 0 <= reward < 10**6:
        return None
    return reward * (1 + market.network_fee_percentage / 100)


def offers_of(markets: Iterable[Market]) -> list[Offer]:
    """Markets as offers, cheapest first. One whose price can't be read is left out: it can't be held to a cap."""
    priced = [(price, market) for market in markets if (price := price_of(market)) is not None]
    return [_offer(price, market) for price, market in sorted(priced, key=lambda pair: (pair[0], pair[1].slug))]


def _offer(price: Decimal, market: Market) -> Offer:
    reported = int(market.lowest_vram * 1024) if market.lowest_vram else None
    gpu = normalise(market.gpu_types[0] if market.gpu_types else market.slug, reported)
    memory = gpu.memory_gb or (int(market.lowest_vram) if market.lowest_vram else None)
    attributes = {
        "pool": f"{market.address},{market.slug}",
        "market_address": market.address,
        "market_type": market.type,
        "gpu_types": ", ".join(market.gpu_types)[:512],
    }
    return Offer(
        id=market.slug,
        gpu_type=gpu.slug,
        gpu_count=1,
        gpu_memory_gb=memory,
        region="global",
        price_per_hour=render(price),
        attributes=[OfferAttribute(name=name, value=value) for name, value in attributes.items()],
    )


def market_of(request: LaunchRequest) -> str:
    """The address of the market that the request is to be bought in."""
    attributes = {attribute.name: attribute.value for attribute in request.offer.attributes}
    address, pools = attributes.get("market_address"), attributes.get("pool", "").split(",")
    if not address:
        raise Refused(f"offer {request.offer.id!r} names no market")
    if request.provider_pool_id and request.provider_pool_id not in pools:
        raise Refused(f"offer {request.offer.id!r} is not of the pool's market {request.provider_pool_id!r}")
    return address


# --- workloads -----------------------------------------------------------------------------------------------------------


def create_body(request: LaunchRequest, market: str, timeout: Minutes) -> dict[str, Any]:
    """The body of a deployment's creation. Refused if Nosana can't run the workload."""
    body: dict[str, Any] = {
        "name": str(request.mark),
        "market": market,
        "replicas": 1,
        "timeout": timeout,
        "strategy": STRATEGY,
        "job_definition": job_definition(request),
    }
    if request.logins or any(value.secret for value in request.env):
        # A job definition is published on IPFS for everybody to read, unless it is confidential.
        body["confidential"] = True
    return body


def job_definition(request: LaunchRequest) -> dict[str, Any]:
    """The workload as job definition 0.1. Refused if Nosana can't run it."""
    workload = request.workload
    if request.gpu_count > 1:
        raise Refused(f"Nosana gives one GPU per job; {request.gpu_count} were asked for")
    if workload.image is None:
        raise Refused("Nosana runs container images; the workload names none")
    arguments: dict[str, Any] = {"image": workload.image, "gpu": request.gpu_count > 0}
    # Lists, never strings: a string would be given to a shell.
    optional = {
        "entrypoint": list(workload.command),
        "cmd": list(workload.args),
        "env": {value.name: value.value for value in request.env},
        "expose": [_expose(port, workload.readiness_probe) for port in workload.ports],
        "work_dir": workload.working_dir,
        "authentication": _login(request.logins, workload.image),
    }
    arguments |= {name: value for name, value in optional.items() if value}
    _refuse_templates(arguments, "workload")
    operation = {"type": "container/run", "id": OPERATION, "args": arguments}
    return {"version": "0.1", "type": "container", "meta": {"trigger": "api"}, "ops": [operation]}


def _expose(port: Port, probe: Probe | None) -> dict[str, Any]:
    if port.protocol is PortProtocol.TCP:
        raise Refused(f"port {port.name!r}: Nosana exposes HTTP and WebSocket only, not raw TCP")
    exposed: dict[str, Any] = {
        "port": port.port,
        "type": "websocket" if port.protocol is PortProtocol.WEBSOCKET else "api",
    }
    if probe and probe.http_get and probe.http_get.port == port.name:
        exposed["health_checks"] = [
            {"type": "http", "path": probe.http_get.path, "method": "GET", "expected_status": 200, "continuous": False}
        ]
    return exposed


def _login(logins: Sequence[RegistryLogin], image: str) -> dict[str, Any] | None:
    """The login of the image's registry; Nosana takes one."""
    head, slash, _ = image.partition("/")
    registry = head if slash and ("." in head or ":" in head or head == "localhost") else "docker.io"
    for login in logins:
        server = login.server.removeprefix("https://").removeprefix("http://").split("/")[0]
        if server == registry or (registry == "docker.io" and server in ("index.docker.io", "registry-1.docker.io")):
            return {"docker": {"username": login.username, "password": login.password, "server": login.server}}
    return None


def _refuse_templates(value: object, where: str) -> None:
    """Strings in which a host would replace something, or that no container takes, can't be handed over as they are."""
    if isinstance(value, str):
        if _TEMPLATE.search(value) or "\0" in value:
            # The value isn't quoted: it may be a secret.
            raise Refused(f"{where} holds a placeholder of Nosana's (like %%ops.x%%) or a NUL character")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_templates(item, f"{where}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_templates(item, f"{where}[{index}]")
