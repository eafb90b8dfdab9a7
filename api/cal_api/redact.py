"""What counts as a secret, and how it looks when it is echoed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
HIDDEN = "***"


def is_secret(name: str) -> bool:
    """Whether a variable or field of that name holds a secret."""
    return SECRET_NAME.search(name) is not None


def redacted(value: Any) -> Any:
    """The same JSON with every value under a secret's name hidden, and passwords taken out of URLs."""
    if isinstance(value, dict):
        # {"name": "API_KEY", "value": "..."}: the name stands beside the value, not above it
        hide_value = isinstance(value.get("name"), str) and is_secret(value["name"])
        return {
            key: HIDDEN
            if (is_secret(key) and not _harmless(item)) or (hide_value and key == "value")
            else redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return _without_login(value) if isinstance(value, str) else value


def hidden_arguments(arguments: Sequence[str], mark: str = HIDDEN) -> list[str]:
    """A command line with `mark` for what a flag or an assignment of a secret's name gives: --api-key X, --token=X, or MY_KEY=X in a script."""
    shown: list[str] = []
    flag = ""
    for argument in arguments:
        bare = _SECRET_FLAG.search(flag) is not None and not argument.startswith("-")
        shown.append(mark if bare else _hidden(argument, mark))
        flag = argument if _FLAG.fullmatch(argument) else ""
    return shown


def _hidden(argument: str, mark: str) -> str:
    def flag(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}{mark}" if _SECRET_FLAG.search(found[1]) else found[0]

    def assignment(found: re.Match[str]) -> str:
        return f"{found[1]}={mark}" if _SECRET_VARIABLE.search(found[1]) else found[0]

    return _without_login(_ASSIGNED.sub(assignment, _FLAGGED.sub(flag, argument)), mark)


def compact(value: Any) -> str:
    """JSON on one line, with Decimals as numbers."""
    return json.dumps(value, separators=(",", ":"), default=_number)


def _without_login(text: str, mark: str = HIDDEN) -> str:
    return _URL_LOGIN.sub(lambda found: f"{found[1]}{mark}@", text)


#: Each of these begins where a run of its letters does: begun within one too, they would take quadratic time on what somebody made up.
_URL_LOGIN = re.compile(r"(?<![a-z0-9+.-])([a-z0-9+.-]+://)[^/@\s]+@", re.IGNORECASE)
_VALUE = r"""('[^']*'|"[^"]*"|[^\s'";]+)"""
_FLAG = re.compile(r"--?[\w.-]+")
#: Names are looked at apart, for the same reason.
_FLAGGED = re.compile(rf"(?<![\w.-])(--?[\w.-]+)(=|\s+)(?!-){_VALUE}")
_ASSIGNED = re.compile(rf"\b(\w+)={_VALUE}")
#: How the name of such a flag ends: --max-tokens and --tokenizer are none.
_SECRET_FLAG = re.compile("(key|token|secret|password|credential)$", re.IGNORECASE)
#: In capitals, as variables are.
_SECRET_VARIABLE = re.compile(SECRET_NAME.pattern)


def _harmless(value: Any) -> bool:
    return value is None or isinstance(value, bool) or value in ("", [], {})


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
