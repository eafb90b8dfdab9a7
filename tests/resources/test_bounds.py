"""Every bound and pattern of the resources on the real API server: each broken by itself, and judged alike by the models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from cal_crds import crd
from cal_crds.cluster import Cluster, Invalid
from cal_crds.meta import DEPLOYMENT, KINDS, POOL, PROVIDER, Kind

pytestmark = pytest.mark.anyio

Object = dict[str, Any]
Full = Callable[..., Object]
Step = str | int


def _path(kind: Kind, namespace: str, name: str | None = None) -> str:
    return kind.path(namespace if kind.namespaced else None, name)


# --- spellings: what a pattern is meant to let through and to refuse, by the API server and by the models alike -------------

_URL = (
    ["http://127.0.0.1:8000", "https://[::1]:8443/v1?x=%20#a", "https://api.example.com/"],
    [
        "ftp://x",
        "http://",
        "//x",
        "http://user:pw@host/",
        "http://a b",
        "http://x/\x1b",
        "http:///path",
        "javascript:x",
    ],
)
_MONEY = (
    ["0", "0.000000001", "1.50", "999999999999"],
    ["-1", "+1", "1e3", "01", "1.", ".5", "1.0000000001", "NaN", "1,5", "", " 1", "1\n", "1000000000000"],
)
_QUANTITY = (["4", "500m", "0.5", "16Gi", "1Ti"], ["-1", "16 Gi", "16GiB", "1e3", "", "Gi", "4\n"])
_TEXT = (["user-123", "Jürgen & Söhne", "日本 <b>\u2028"], ["a\nb", "\x00", "\x1b[31m", "a" * 257])
_NAME = (["a", "a.b-c", "0"], ["A", "-a", "a-", "a_b", "", "a" * 254, "a\n"])
_ENV = (["A", "_a1", "HF_HOME"], ["1A", "A-B", "A=B", "", "A B", "Ä"])
_IMAGE = (
    ["vllm/vllm-openai:v0.11.0", "ghcr.io/a/b@sha256:00", "localhost:5000/x"],
    ["a b", "$(id)", "a;b", "-x", "", "a\nb", "a'b"],
)
_HTTP_PATH = (["/", "/health?x=1", "/%C3%A4"], ["health", "/a b", "/\x1b", "/ä", ""])
_MOMENT = (
    ["2026-11-01T12:00:00Z", "2026-11-01T12:00:00.123456+02:00", "2026-11-01t12:00:00z"],
    ["2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "2026-11-01T12:00:00+25:00", "2026-11-01", "now", "1761998400"],
)

#: Kind, the place in its spec, what is let through, what is refused.
SPELLINGS: list[tuple[Kind, tuple[Step, ...], tuple[list[str], list[str]]]] = [
    (PROVIDER, ("endpoint",), _URL),
    (PROVIDER, ("local", "maxMemory"), _QUANTITY),
    (PROVIDER, ("credentials", 0, "secretRef", "name"), _NAME),
    (POOL, ("maxCostPerHour",), _MONEY),
    (POOL, ("limits", "maxTotalCost"), _MONEY),
    (POOL, ("owner", "id"), _TEXT),
    (DEPLOYMENT, ("model", "name"), _TEXT),
    (DEPLOYMENT, ("poolRef", "name"), _NAME),
    (DEPLOYMENT, ("restartedAt",), _MOMENT),
    (DEPLOYMENT, ("workload", "env", 0, "name"), _ENV),
    (DEPLOYMENT, ("workload", "image"), _IMAGE),
    (DEPLOYMENT, ("workload", "readinessProbe", "httpGet", "path"), _HTTP_PATH),
    (DEPLOYMENT, ("workload", "resources", "memory"), _QUANTITY),
]


@pytest.mark.parametrize(
    ("kind", "place", "spellings"), SPELLINGS, ids=lambda value: str(value) if isinstance(value, tuple) else ""
)
async def test_a_spelling_is_judged_alike_by_the_api_server_and_the_models(
    kind: Kind,
    place: tuple[Step, ...],
    spellings: tuple[list[str], list[str]],
    cluster: Cluster,
    namespace: str,
    full: Full,
) -> None:
    path, body = _path(kind, namespace), full(kind.name, namespace)
    for wanted, texts in zip((True, False), spellings, strict=True):
        for text in texts:
            changed = _with(body, ("spec", *place), text)
            assert await _refused(cluster, "POST", path, changed) is not wanted, text
            assert _reads(kind, changed) is wanted or (place == ("restartedAt",) and not wanted), text


def _reads(kind: Kind, body: Object) -> bool:
    try:
        crd.MODELS[kind].parse(body)
    except ValidationError:
        return False
    return True


# --- bounds: each one broken by itself -----------------------------------------------------------------------------------


def _breaches(schema: Object, value: Any) -> Iterator[tuple[str, Any]]:
    """What each bound of a part forbids: its name, and the value broken by the least."""
    if "enum" in schema:
        yield "enum", "Nonsense"
    if "minimum" in schema:
        yield "minimum", schema["minimum"] - 1
    if "maximum" in schema and schema["maximum"] < 2**53:
        yield "maximum", schema["maximum"] + 1
    if "maxLength" in schema:
        yield "maxLength", (str(value) or "a") * (schema["maxLength"] + 1)
    if "pattern" in schema:
        yield "pattern", "\n"
    if schema["type"] in {"string", "integer", "array"}:
        yield "type", {"a": 1}
    if schema["type"] == "integer":
        yield "no fraction", 1.5
    if schema["type"] == "array":
        yield "maxItems", [value[0]] * (schema["maxItems"] + 1)


def _leaves(schema: Object, value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Object, Any]]:
    """Every part of a schema that the value has: its path, its schema, its value."""
    if path:
        yield path, schema, value
    for name, part in schema.get("properties", {}).items():
        if name in value:
            yield from _leaves(part, value[name], (*path, name))
    if "items" in schema and value:
        yield from _leaves(schema["items"], value[0], (*path, 0))


def _with(body: Object, path: tuple[Step, ...], value: Any) -> Object:
    changed = copy.deepcopy(body)
    spot: Any = changed
    for step in path[:-1]:
        spot = spot[step]
    spot[path[-1]] = value
    return changed


async def _refused(cluster: Cluster, method: str, path: str, body: Object) -> bool:
    try:
        await cluster.request(method, path, body=body, query={"dryRun": "All"})
    except Invalid:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_bound_of_a_spec_is_enforced(
    kind: Kind, cluster: Cluster, namespace: str, variants: Callable[..., list[Object]]
) -> None:
    schema, slipped, met = crd.schema(kind)["properties"]["spec"], [], set()
    for body in variants(kind.name, namespace):
        await cluster.create(_path(kind, namespace), body, dryRun="All")
        for spot, part, value in _leaves(schema, body["spec"]):
            met.add(_name(spot))
            for bound, broken in _breaches(part, value):
                if not await _refused(cluster, "POST", _path(kind, namespace), _with(body, ("spec", *spot), broken)):
                    slipped.append((spot, bound))
    assert slipped == []
    assert {_name(spot) for spot in _all(schema)} - met == set(), "add the field to full.yaml"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_bound_of_a_status_is_enforced(kind: Kind, cluster: Cluster, namespace: str, full: Full) -> None:
    body, slipped, met = full(kind.name, namespace), [], set()
    stored = await cluster.create(_path(kind, namespace), body)
    schema, path = crd.schema(kind)["properties"]["status"], _path(kind, namespace, namespace) + "/status"
    stored["status"] = body["status"]
    await cluster.replace(path, stored, dryRun="All")
    for spot, part, value in _leaves(schema, body["status"]):
        met.add(_name(spot))
        for bound, broken in _breaches(part, value):
            if not await _refused(cluster, "PUT", path, _with(stored, ("status", *spot), broken)):
                slipped.append((spot, bound))
    assert slipped == []
    assert {_name(spot) for spot in _all(schema)} - met == set(), "add the field to full.yaml"


def _all(schema: Object, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The path of every part of a schema."""
    if path:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from _all(part, (*path, name))
    if "items" in schema:
        yield from _all(schema["items"], (*path, 0))


def _name(spot: tuple[Step, ...]) -> str:
    return ".".join(str(step) for step in spot)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_required_field_is_missed(kind: Kind, cluster: Cluster, namespace: str, full: Full) -> None:
    body = full(kind.name, namespace)
    schema = crd.schema(kind)["properties"]["spec"]
    for name in schema.get("required", []):
        poorer = copy.deepcopy(body)
        del poorer["spec"][name]
        with pytest.raises(Invalid, match=name):
            await cluster.create(_path(kind, namespace), poorer, dryRun="All")
    with pytest.raises(Invalid, match="spec"):
        await cluster.create(_path(kind, namespace), {**body, "spec": None}, dryRun="All")
