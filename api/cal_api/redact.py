"""What counts as a secret, and how it looks when it is echoed."""

from __future__ import annotations

import json
import re
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
    return _URL_LOGIN.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value


def compact(value: Any) -> str:
    """JSON on one line, with Decimals as numbers."""
    return json.dumps(value, separators=(",", ":"), default=_number)


_URL_LOGIN = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)


def _harmless(value: Any) -> bool:
    return value is None or isinstance(value, bool) or value in ("", [], {})


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
