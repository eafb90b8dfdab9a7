"""A workload under translation, and the readers of single values that say which field is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from cal_api.errors import BadRequest, bad
from cal_api.redact import is_secret
from cal_api.values import integral

T = TypeVar("T")


@dataclass
class Draft:
    """What a configuration says, in the words of our resources. Only what was said is there."""

    #: Of the Secret that `secrets` go to.
    secret_name: str
    #: Fields of `spec.workload`, except env.
    workload: dict[str, Any] = field(default_factory=dict)
    #: Variables in order of appearance: EnvVar as a dict; and whether these are all, or some that other fields stand for.
    env: dict[str, dict[str, Any]] = field(default_factory=dict)
    env_is_whole: bool = False
    #: Key in the Secret -> value.
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    gpus: int | None = None
    model_id: str | None = None
    served_name: str | None = None
    max_runtime_seconds: int | None = None
    endpoint: str | None = None
    #: An external endpoint's key, as a key in the Secret.
    external_key: str | None = None
    #: What no field holds; kept redacted, for the echo.
    rest: dict[str, Any] = field(default_factory=dict)
    #: What was said under one of several names: thing -> (the name, the value).
    _said: dict[str, tuple[str, Any]] = field(default_factory=dict, repr=False)

    def set_env(self, name: str, value: str) -> None:
        """A variable, which goes to the Secret if its name says so."""
        if is_secret(name):
            self.secrets[name] = value
            self.env[name] = {"name": name, "valueFrom": {"secretKeyRef": {"name": self.secret_name, "key": name}}}
        else:
            self.env[name] = {"name": name, "value": value}

    def agreed(self, thing: str, where: str, value: T) -> T:
        """The value, unless another name of the same thing has said something else: neither is dropped in silence."""
        first, known = self._said.setdefault(thing, (where, value))
        if known != value:
            raise BadRequest(f"{where}: says something else than {first}; give one of the two")
        return value


Reader = Callable[[Draft, str, Any], None]


def text(where: str, value: Any, longest: int = 256) -> str:
    """A string on one line."""
    if not isinstance(value, str) or not value:
        raise bad(where, value, "must be a string")
    if len(value) > longest:
        raise BadRequest(f"{where}: {len(value)} characters are too many; at most {longest}")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise bad(where, value, "must not hold control characters")
    return value


def whole(where: str, value: Any, least: int, most: int) -> int:
    """A whole number within bounds."""
    value = integral(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad(where, value, f"must be a whole number from {least} to {most}")
    return value


def mapping(where: str, value: Any) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise bad(where, value, "must be an object")
    return value


def items(where: str, value: Any, most: int) -> list[Any]:
    """A list that isn't too long."""
    if not isinstance(value, list):
        raise bad(where, value, "must be a list")
    if len(value) > most:
        raise BadRequest(f"{where}: {len(value)} items are too many; at most {most}")
    return value


def plain(where: str, value: Any) -> str:
    """A scalar as a string: true, 8, 0.9, text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | Decimal):
        return str(value)
    raise BadRequest(f"{where}: must be a string, a number or a boolean")
