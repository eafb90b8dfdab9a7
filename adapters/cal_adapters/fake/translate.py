"""Between the contract's words and the books of the demo market. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from cal_adapters.contract import Instance, LaunchRequest, Mark, Observation, Readiness, State
from cal_adapters.errors import PriceAboveCap, Refused
from cal_adapters.fake.catalogue import CATALOGUE
from cal_adapters.fake.ledger import Entry, Purchase
from cal_crds.money import render
from cal_crds.provider import DemoSettings
from cal_crds.workload import PortProtocol

#: Variables by which a workload tells the market how it should end, for demonstrations: the exit code, and after how many seconds.
EXIT_CODE: Final = "DEMO_EXIT_CODE"
EXIT_AFTER: Final = "DEMO_EXIT_AFTER_SECONDS"
_LONGEST: Final = 315360000
_SCHEMES: Final = {PortProtocol.HTTP: "http", PortProtocol.WEBSOCKET: "ws", PortProtocol.TCP: "tcp"}


def purchase(request: LaunchRequest, settings: DemoSettings, price_factor: Decimal, now: float) -> Purchase:
    """What to write down. Raises Refused and PriceAboveCap."""
    shape = CATALOGUE.get(request.offer.id)
    if shape is None:
        raise Refused(f"The demo market sells no {request.offer.id!r}")
    if request.gpu_count > shape.offer.gpu_count:
        raise Refused(f"{shape.offer.id} has {shape.offer.gpu_count} GPUs, not {request.gpu_count}")
    price = Decimal(shape.offer.price_per_hour) * price_factor
    if request.max_price_per_hour is not None and price > request.max_price_per_hour:
        raise PriceAboveCap(f"{shape.offer.id} costs {render(price)} an hour now, above {request.max_price_per_hour}")
    running = now + settings.launch_delay_milliseconds / 1000
    ends, exit_code = _wished_end(request)
    return Purchase(
        mark=request.mark,
        offer=shape.offer.id,
        price=price,
        stock=shape.stock,
        bought=now,
        running=running,
        ready=running + settings.ready_delay_milliseconds / 1000,
        port=next((f"{_SCHEMES[port.protocol]}:{port.port}" for port in request.workload.ports), None),
        ends=None if ends is None else running + ends,
        exit_code=exit_code,
    )


def instance(entry: Entry, account: str) -> Instance:
    """The paid thing, as the contract says it."""
    handle = f"demo-{entry.id}"
    return Instance(handle, handle, Mark.read(entry.mark or ""), account, Decimal(entry.price), _moment(entry.bought))


def number(handle: str) -> int | None:
    """The number of the entry that a handle names; None if it can't be one of ours."""
    kind, _, digits = handle.partition("-")
    return int(digits) if kind == "demo" and digits.isascii() and digits.isdecimal() and len(digits) < 19 else None


def observation(entry: Entry, now: float) -> Observation:
    """What the market says of an entry at this moment."""
    state, message = _state(entry, now)
    ready = state is State.RUNNING and entry.ready <= now
    return Observation(
        state=state,
        message=message,
        endpoint=_endpoint(entry),
        readiness=Readiness.YES if ready else Readiness.NO,
        exit_code=entry.exit_code if state in (State.SUCCEEDED, State.FAILED) else None,
        started=_moment(entry.bought),
        price_per_hour=Decimal(entry.price),
        node_address=f"{entry.offer}.demo.invalid",
    )


def log(entry: Entry, printed: list[tuple[float, str]], now: float) -> list[str]:
    """The market's own words about the instance, with what its workload printed, by time."""
    told = [(entry.bought, f"bought {entry.offer} at {entry.price} US dollars an hour")]
    over = entry.over()
    if entry.running <= now and (over is None or entry.running < over):
        told.append((entry.running, "running"))
    told += printed
    if over is not None and over <= now:
        told.append((over, _ending(entry)[1]))
    return [text for _, text in sorted(told, key=lambda line: line[0])]


def _state(entry: Entry, now: float) -> tuple[State, str]:
    if entry.strange is not None:
        return State.UNKNOWN, f"the market says {entry.strange!r}"
    if not entry.live(now):
        return _ending(entry)
    if entry.stops is not None:
        return State.RUNNING, "stopping"
    if entry.running > now:
        return State.STARTING, "comes up"
    return State.RUNNING, "running" if entry.ready <= now else "loads its model"


def _ending(entry: Entry) -> tuple[State, str]:
    by_itself = entry.ends is not None and (entry.stops is None or entry.ends <= entry.stops)
    if not by_itself:
        return State.TERMINATED, "stopped"
    if entry.end_state is not None:
        state = State(entry.end_state)
    else:
        state = State.SUCCEEDED if entry.exit_code == 0 else State.FAILED
    return state, f"ended: {state}" + (f", exit code {entry.exit_code}" if entry.exit_code is not None else "")


def _endpoint(entry: Entry) -> str | None:
    if entry.port is None:
        return None
    scheme, _, port = entry.port.partition(":")
    return f"{scheme}://demo-{entry.id}.demo.invalid:{port}"


def _wished_end(request: LaunchRequest) -> tuple[float | None, int | None]:
    """After how many seconds of running the workload ends by itself, and with which code; (None, None): never."""
    env = {variable.name: variable.value for variable in request.env}
    if EXIT_CODE not in env:
        return None, None
    try:
        after, code = Decimal(env.get(EXIT_AFTER) or "0"), int(env[EXIT_CODE])
    except (InvalidOperation, ValueError) as error:
        raise Refused(f"{EXIT_CODE} and {EXIT_AFTER} must be numbers") from error
    if not (after.is_finite() and 0 <= after <= _LONGEST and 0 <= code <= 255):
        raise Refused(f"{EXIT_CODE} must be 0 to 255 and {EXIT_AFTER} 0 to {_LONGEST}")
    return float(after), code


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
