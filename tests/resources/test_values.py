"""Money, names, digests and archives, by properties; and that the models read whatever the schema lets through."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cal_crds import archive, crd, heartbeats, money, names
from cal_crds.archive import MAX_BYTES, MAX_LINES
from cal_crds.meta import KINDS, Kind
from cal_crds.pool import Cost
from cal_crds.schema import structural

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MONEY = re.compile(structural(Cost)["properties"]["accumulated"]["pattern"])
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
amounts = st.decimals(min_value=0, max_value=10**9, places=9)
moments = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)).map(lambda since: NOW + since)

# --- money ---------------------------------------------------------------------------------------------------------------


@given(amounts)
def test_money_survives_its_own_spelling_and_fits_the_field(amount: Decimal) -> None:
    text = money.render(amount)
    assert money.parse(text) == amount
    assert MONEY.fullmatch(text)
    assert len(text) <= 24


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("-0.0", "0"),
        ("1.50", "1.5"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("0.0000000004", "0"),
        ("1E-9", "0.000000001"),
        ("-5", "0"),
        ("1E+15", "999999999999"),
    ],
)
def test_money_is_spelt_plainly(amount: str, text: str) -> None:
    assert money.render(Decimal(amount)) == text


@given(amounts, amounts, moments, moments)
def test_cost_never_falls_and_grows_by_the_rate(accumulated: Decimal, rate: Decimal, a: datetime, b: datetime) -> None:
    cost = Cost(accumulated=money.render(accumulated), since=NOW, rate_per_hour=money.render(rate))
    earlier, later = sorted((a, b))
    assert accumulated <= money.total(cost, earlier) <= money.total(cost, later)
    hour = money.total(cost, NOW + timedelta(hours=1)) - money.total(cost, NOW)
    assert money.render(hour) == money.render(rate)


def test_a_clock_that_went_back_costs_nothing() -> None:
    cost = Cost(accumulated="5", since=NOW, rate_per_hour="1")
    assert money.total(cost, NOW - timedelta(hours=3)) == 5


@given(amounts, amounts, amounts, moments)
def test_a_new_rate_keeps_what_was_spent(accumulated: Decimal, rate: Decimal, other: Decimal, now: datetime) -> None:
    cost = Cost(accumulated=money.render(accumulated), since=NOW, rate_per_hour=money.render(rate))
    changed = money.at_rate(cost, other, now)
    assert abs(money.total(changed, now) - min(money.total(cost, now), Decimal(10**12 - 1))) <= Decimal("0.000000001")
    assert money.parse(changed.rate_per_hour) == other
    if other == rate:
        assert changed is cost


def test_a_rate_with_more_decimals_than_a_field_holds_changes_nothing_twice() -> None:
    third = Decimal(1) / 3
    once = money.at_rate(None, third, NOW)
    assert money.at_rate(once, third, NOW + timedelta(hours=1)) is once


def test_no_cost_yet() -> None:
    assert money.total(None, NOW) == 0
    assert money.at_rate(None, Decimal("0.5"), NOW) == Cost(accumulated="0", since=NOW, rate_per_hour="0.5")


# --- names ---------------------------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.text())
def test_names_are_valid_whatever_they_are_made_from(a: str, b: str, c: str) -> None:
    made = [
        names.slug(a),
        names.pool_name(a, b, c),
        names.organization_deployment_name(a, b, 7),
        names.free_deployment_name(a),
        names.node_name(a, b, 0, c),
        names.label_hash(a),
        names.new_token(),
    ]
    for name in made:
        assert LABEL.fullmatch(name), name
        assert len(name) <= 63


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_a_digest_keeps_its_parts_apart(a: list[str], b: list[str]) -> None:
    assert (names.digest(*a, length=64) == names.digest(*b, length=64)) is (a == b)


@given(st.text(), st.text(), st.text(), st.text())
def test_one_owner_and_display_name_make_one_pool_name(owner: str, other: str, name: str, second: str) -> None:
    assert names.pool_name("User", owner, name) == names.pool_name("User", owner, name)
    assert names.pool_name("User", owner, name) != names.pool_name("Organization", owner, name)
    if (owner, name) != (other, second):
        assert names.pool_name("User", owner, name) != names.pool_name("User", other, second)


def test_a_slot_and_its_predecessor_make_one_node_name() -> None:
    made = {
        names.node_name("llama." * 20, uid, slot, before)
        for uid in ("u1", "u2")
        for slot in (0, 1, 10)
        for before in ("", "n1", "0")
    }
    assert len(made) == 18


# --- archives and digests of beats ---------------------------------------------------------------------------------------

lines = st.lists(
    st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=200), max_size=50
)


def _stored(packed: bytes) -> dict[str, Any]:
    return {"binaryData": {"log.gz": base64.b64encode(packed).decode()}}


@given(lines.filter(bool))
def test_lines_survive_the_archive(text: list[str]) -> None:
    assert archive.unpack(_stored(archive.pack(text))) == text


@pytest.mark.parametrize("count", [0, 1, MAX_LINES, MAX_LINES + 7])
def test_the_archive_keeps_the_last_lines(count: int) -> None:
    text = [f"line {n}" for n in range(count)]
    assert archive.unpack(_stored(archive.pack(text))) == text[-MAX_LINES:]


def test_lines_that_do_not_fit_are_dropped_from_the_front() -> None:
    noise = [names.digest(str(n), length=64) * 16 for n in range(MAX_LINES)]
    wide = ["".join(names.digest(line, str(part), length=64) for part in range(16)) for line in noise]
    packed = archive.pack(wide)
    kept = archive.unpack(_stored(packed))
    assert len(packed) <= MAX_BYTES
    assert 0 < len(kept) < MAX_LINES
    assert kept == wide[-len(kept) :]


def test_what_is_no_text_is_kept_as_a_question_mark() -> None:
    assert archive.unpack(_stored(archive.pack(["a\udcff"]))) == ["a?"]


def test_one_line_that_never_fits_leaves_an_empty_archive() -> None:
    huge = "".join(names.digest(str(n), length=64) for n in range(20000))
    assert archive.unpack(_stored(archive.pack([huge]))) == []
    assert archive.unpack({}) == []


@given(st.dictionaries(st.uuids().map(str), moments.map(lambda moment: moment.replace(microsecond=0))))
def test_beats_survive_their_digest(beats: dict[str, datetime]) -> None:
    assert heartbeats.parse(heartbeats.build("api-0", "cal-system", beats)) == beats


# --- what the schema lets through, the models read -----------------------------------------------------------------------


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever a structural schema lets through, texts and lists kept short."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "object":
        return _objects(schema)
    if schema["type"] == "array":
        return st.lists(_values(schema["items"]), max_size=2)
    if schema["type"] == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    if "pattern" in schema:
        texts = _moments() if schema.get("format") == "date-time" else st.from_regex(schema["pattern"], fullmatch=True)
    else:
        texts = st.text(max_size=40)
    return texts.filter(lambda text: schema.get("minLength", 0) <= len(text) <= schema["maxLength"])


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    parts, required = schema["properties"], schema.get("required", [])
    return st.fixed_dictionaries(
        {name: _values(parts[name]) for name in required},
        optional={name: _values(part) for name, part in parts.items() if name not in required},
    )


def _moments() -> st.SearchStrategy[str]:
    offsets = st.sampled_from(["Z", "z", "+00:00", "-23:59", "+05:30"])
    whole = st.datetimes(datetime(2000, 1, 1), datetime(2999, 12, 31)).map(lambda moment: moment.isoformat())
    return st.tuples(whole, offsets).map("".join)


@cache
def _bodies(kind: Kind) -> st.SearchStrategy[Any]:
    return _values(crd.schema(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_the_schema_lets_through_the_models_read(kind: Kind, data: st.DataObject) -> None:
    body = data.draw(_bodies(kind))
    resource = crd.MODELS[kind].parse({**body, "metadata": {"name": "x"}})
    assert crd.MODELS[kind].parse(resource.dump()).dump() == resource.dump()
