"""The wire: every error of the API server has its place in the contract's family, and no answer is taken for what it isn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from cal_adapters import errors
from cal_adapters.k8s.client import translate
from cal_adapters.k8s.rights import RULES
from cal_crds import cluster as wire

REPO = Path(__file__).resolve().parents[3]
STATUS = {"kind": "Status", "apiVersion": "v1"}


def unavailable(status: int, cause: BaseException | None = None, **body: Any) -> wire.Unavailable:
    error = wire.Unavailable(status, "words", STATUS | body)
    error.__cause__ = cause
    return error


def refused_connection() -> aiohttp.ClientConnectorError:
    key: Any = type("Key", (), {"host": "h", "port": 1, "ssl": True, "is_ssl": True})()
    return aiohttp.ClientConnectorError(key, ConnectionRefusedError())


RBAC = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" at the cluster scope'
ROWS: list[tuple[wire.ClusterError, type[errors.AdapterError]]] = [
    (wire.Forbidden(401, "Unauthorized", STATUS), errors.CredentialsRefused),
    (wire.Forbidden(403, RBAC, STATUS), errors.CredentialsRefused),
    (wire.Forbidden(403, "pods is forbidden: exceeded quota: q", STATUS), errors.NoCapacity),
    (wire.Forbidden(403, 'pods "x" is forbidden: violates PodSecurity "restricted"', STATUS), errors.Refused),
    (wire.Forbidden(403, "error looking up service account ns/default: not found", STATUS), errors.NothingBought),
    (wire.NotFound(404, 'namespaces "x" not found', STATUS), errors.Refused),
    (wire.NotFound(404, "<html>", {}), errors.OutcomeUnknown),
    (wire.Invalid(422, "Required value", STATUS), errors.Refused),
    (wire.Conflict(409, "field is another's", STATUS), errors.Refused),
    (wire.AlreadyExists(409, "exists", STATUS), errors.Refused),
    (wire.Gone(410, "continue token too old", STATUS), errors.OutcomeUnknown),
    (unavailable(429), errors.RateLimited),
    (unavailable(500), errors.OutcomeUnknown),
    (unavailable(503), errors.OutcomeUnknown),
    (unavailable(0, refused_connection()), errors.NotSent),
    (unavailable(0, aiohttp.ConnectionTimeoutError()), errors.NotSent),
    (unavailable(0, aiohttp.ServerDisconnectedError()), errors.OutcomeUnknown),
    (unavailable(0, TimeoutError()), errors.OutcomeUnknown),
    (wire.ClusterError(418, "teapot"), errors.OutcomeUnknown),
]


@pytest.mark.parametrize(("error", "kind"), ROWS, ids=[f"{e.status}-{k.__name__}" for e, k in ROWS])
def test_errors_are_told_apart(error: wire.ClusterError, kind: type[errors.AdapterError]) -> None:
    made = translate(error)
    assert type(made) is kind
    assert made.message


def test_every_error_of_the_wire_has_a_row() -> None:
    def all_of(kind: type[wire.ClusterError]) -> set[type[wire.ClusterError]]:
        below = [all_of(child) for child in kind.__subclasses__()]
        return {kind}.union(*below)

    assert all_of(wire.ClusterError) == {type(error) for error, _ in ROWS}


def test_the_api_servers_wish_for_patience_is_heard() -> None:
    assert translate(unavailable(429, details={"retryAfterSeconds": 7})).retry_after == 7
    assert translate(unavailable(429)).retry_after is None


def test_the_docs_show_the_rights_that_the_adapter_uses() -> None:
    text = (REPO / "docs" / "adapters" / "k8s.md").read_text()
    block = next(part for part in text.split("```yaml\n")[1:] if "ClusterRole" in part).partition("```")[0]
    assert yaml.safe_load(block)["rules"] == list(RULES)
