"""The registry, the family of errors, and that the core knows no adapter by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from cal_adapters import errors
from cal_adapters.contract import Credentials, EnvValue, Mark, RegistryLogin
from cal_adapters.errors import AdapterError, NothingBought
from cal_adapters.registry import ADAPTERS, ON_REQUEST, UnknownAdapter, available, load

REPO = Path(__file__).parents[2]


def test_names_are_in_order() -> None:
    assert list(ADAPTERS) == sorted(ADAPTERS)


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_name_leads_to_a_factory(name: str) -> None:
    assert callable(load(name, ADAPTERS))


@pytest.mark.parametrize("name", sorted(ON_REQUEST))
def test_adapters_on_request_load_only_when_they_are_enabled(name: str) -> None:
    assert name not in available([])
    with pytest.raises(UnknownAdapter, match=r"it loads only where it is asked for .* Available"):
        load(name)
    assert callable(load(name, [name]))


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UnknownAdapter, match=r"^No adapter 'nope' here. Available: .*'k8s'"):
        load("nope")


def all_errors(base: type[AdapterError] = AdapterError) -> Iterator[type[AdapterError]]:
    yield base
    for kind in base.__subclasses__():
        yield from all_errors(kind)


def test_the_family_of_errors_is_closed() -> None:
    """The operator branches on the kinds of errors.py. An adapter may refine one of its leaves for itself, and add no other."""
    for name in ADAPTERS:
        load(name, ADAPTERS)
    own = [kind for kind in all_errors() if kind.__module__ == errors.__name__]
    leaves = tuple(kind for kind in own if not any(other in kind.__subclasses__() for other in own))
    assert len(leaves) == 9
    assert all(issubclass(kind, leaves) for kind in all_errors() if kind not in own)


def test_only_what_had_no_effect_says_so() -> None:
    assert not issubclass(errors.OutcomeUnknown, NothingBought)
    assert not issubclass(errors.InstanceNotFound, NothingBought)


def test_secrets_are_in_no_repr() -> None:
    held = [
        Credentials("main", {"apiKey": "hunter2"}),
        EnvValue("HF_TOKEN", "hunter2", secret=True),
        RegistryLogin("registry.example", "me", "hunter2"),
    ]
    assert "hunter2" not in repr(held) + str(held)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cal-",
        "cal-0a1b2c3d4e-",
        "cal-0a1b2c3d4e-short",
        "CAL-0a1b2c3d4e-abcdefgh",
        "cal-0a1b2c3d4e-abcdefgh\n",
        "x",
    ],
)
def test_a_name_that_is_no_mark(text: str) -> None:
    assert Mark.read(text) is None


def test_a_mark_reads_back_as_itself() -> None:
    mark = Mark("0a1b2c3d4e", "abcdefgh01")
    assert Mark.read(str(mark)) == mark
    assert len(str(mark)) <= 63


def core_modules() -> list[Path]:
    contract = [REPO / "adapters/cal_adapters" / name for name in ("contract.py", "errors.py")]
    return contract + sorted((REPO / "operator").rglob("*.py")) + sorted((REPO / "relay").rglob("*.py"))


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: str(path.relative_to(REPO)))
def test_the_core_knows_no_adapter_by_name(path: Path) -> None:
    words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert not words & set(ADAPTERS)
