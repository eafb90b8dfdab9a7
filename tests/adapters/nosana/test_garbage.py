"""Answers that nobody would send: whatever they hold, they are read or they are an error of the contract."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cal_adapters.errors import AdapterError, OutcomeUnknown
from cal_adapters.nosana import states, translate
from cal_adapters.nosana.answers import (
    Balance,
    Deployment,
    DeploymentPage,
    EventPage,
    Header,
    JobDetail,
    JobPage,
    Market,
    ReplicaChange,
    StatusChange,
    Vault,
)
from cal_adapters.nosana.client import parse
from cal_adapters.nosana.faults import from_response
from cal_crds.money import render

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MOMENT = "2026-11-23T12:00:00.000Z"
DEPLOYMENT = {
    "id": "D" * 44,
    "name": "cal-0a1b2c3d4e-abcdefgh",
    "owner": "A" * 44,
    "market": "M" * 44,
    "status": "RUNNING",
    "replicas": 1,
    "endpoints": [{"opId": "main", "port": 80, "url": "https://x.invalid"}],
    "active_jobs": 1,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
OPERATION = {
    "status": "failed",
    "exitCode": 3,
    "logs": [{"type": "stdout", "log": "a\nb", "timestamp": MOMENT}],
    "error": {"event": "e", "message": "m"},
    "diagnostics": {"reason": {"hostShutDown": False}, "state": {"OOMKilled": True, "Error": ""}},
}
PAGE = {"cursor_next": None, "cursor_prev": None, "total_items": 1}
MARKET = {
    "address": "M" * 44,
    "slug": "nvidia-3060",
    "type": "PREMIUM",
    "usd_reward_per_hour": 0.048,
    "network_fee_percentage": 10,
    "gpu_types": ["NVIDIA GeForce RTX 3060"],
    "lowest_vram": 12,
}
JOB = {"job": "J" * 44, "state": "RUNNING", "time_start": 1700000000, "created_at": MOMENT}
SAMPLES: dict[Any, Any] = {
    Balance: {"assignedCredits": 1.5, "reservedCredits": 0, "settledCredits": 0.1},
    Deployment: DEPLOYMENT,
    DeploymentPage: {"deployments": [DEPLOYMENT], "pagination": PAGE},
    EventPage: {"events": [{"type": "t", "message": "m"}]},
    Header: {"header": "a:b"},
    JobDetail: {
        "node": "N" * 44,
        "timeEnd": 1700000000,
        "jobResult": {"status": "failed", "opStates": [OPERATION]},
    },
    JobPage: {"jobs": [JOB], "pagination": PAGE},
    Market: MARKET,
    ReplicaChange: {"replicas": 0},
    StatusChange: {"status": "STARTING"},
    list[Vault]: [{"vault": "V" * 44, "owner": "A" * 44}],
}

anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(
            [
                "",
                "../x",
                "\0",
                "\ud800",
                "9" * 400,
                "0001-01-01T00:00:00Z",
                "2026-11-23T12:00:00",
                "NaN",
                -1,
                1e300,
                2**70,
            ]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, item in items for place in places(item, (*above, key)))]


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copied = copy.deepcopy(document)
    inner = copied
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copied


def use(read: Any) -> None:
    """What the adapter does with it."""
    match read:
        case Market():
            translate.offers_of([read])
        case Balance():
            render(read.available)
        case Deployment():
            translate.read_handle(translate.handle_of(read))
            translate.instance_of(read)
            states.observation(read, None, None, "", NOW)
        case DeploymentPage():
            for item in read.deployments:
                use(item)
        case JobPage():
            deployment = Deployment.model_validate(DEPLOYMENT)
            states.observation(deployment, states.current_job(read.jobs), None, "", NOW)
        case JobDetail():
            deployment = Deployment.model_validate(DEPLOYMENT)
            for state in ("RUNNING", "COMPLETED", "STOPPED"):
                job = JobPage.model_validate({"jobs": [{**JOB, "state": state}], "pagination": PAGE}).jobs[0]
                states.observation(deployment, job, read, "", NOW)
            states.log_lines(read.result.operations if read.result else [])


@pytest.mark.parametrize("kind", SAMPLES, ids=str)
def test_the_samples_can_be_read(kind: Any) -> None:
    use(parse("x", json.dumps(SAMPLES[kind]).encode(), kind))


@settings(deadline=None)  # the machine may be busy
@given(data=st.data())
@pytest.mark.parametrize("kind", SAMPLES, ids=str)
def test_any_value_at_any_place_is_read_or_refused(kind: Any, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places(SAMPLES[kind])))
    document = changed(SAMPLES[kind], place, data.draw(anything))
    try:
        read = parse("x", json.dumps(document).encode(), kind)
    except OutcomeUnknown:
        return
    use(read)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        parse("x", content, Deployment)
    assert isinstance(from_response("x", httpx.Response(500, content=content), ()), AdapterError)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"1e9999999999999999999", b"9" * 5000, b'{"replicas": NaN}'])
def test_json_beyond_all_bounds_is_refused(content: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        parse("x", content, ReplicaChange)
    assert isinstance(from_response("x", httpx.Response(404, content=content), ()), OutcomeUnknown)
