"""Field types of request bodies: what REST clients send, checked and in the words of our resources."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

from cal_crds import money
from cal_crds.pool import OwnerType, Strategy

ZERO_UUID = "00000000-0000-0000-0000-000000000000"
_MOST_MONEY = Decimal(10) ** 12
_AMOUNT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
_NINTH = Decimal("0.000000001")

E = TypeVar("E", bound=StrEnum)


def is_uuid(text: str) -> bool:
    """Whether this is a uid in its usual form, in any case of letters."""
    try:
        return len(text) == 36 and str(UUID(text)) == text.lower()
    except ValueError:
        return False


def snake(word: str) -> str:
    """A CamelCase word of our resources as REST says it: BestFit -> best_fit."""
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(word))


def word_of(words: type[E], text: str) -> E:
    """The member that REST means, in any case; ValueError with the list otherwise."""
    found = {snake(word): word for word in words}.get(text.lower().replace("-", "_"))
    if found is None:
        raise ValueError(f"must be one of {[snake(word) for word in words]}")
    return found


def _wrong(message: str) -> ValueError:
    """What a validator raises; pydantic takes no TypeError."""
    return ValueError(message)


def _id(text: object) -> str:
    if not isinstance(text, str) or not is_uuid(text):
        raise ValueError("must be a UUID")
    return text.lower()


def _money(amount: object) -> str:
    if isinstance(amount, bool) or not isinstance(amount, int | Decimal | str):
        raise _wrong("must be US dollars, a number")
    # Decimal reads more than people do: 1_0 as ten, digits of any script
    if isinstance(amount, str) and not _AMOUNT.fullmatch(amount):
        raise ValueError("must be US dollars, a number")
    exact = Decimal(amount)
    if not exact.is_finite() or not 0 <= exact < _MOST_MONEY:
        raise ValueError("must be US dollars, from 0 to below 10^12")
    # Rounded down: a cap must not grow by being stored.
    return money.render(exact.quantize(_NINTH, rounding=ROUND_DOWN))


def _owner_type(text: str) -> OwnerType:
    return word_of(OwnerType, {"org": "organization"}.get(text.lower(), text))


def integral(number: object) -> object:
    """3.0 is 3, as JSON sees it. Neither infinity nor 1e999999 becomes an integer: the latter would have a million digits."""
    if isinstance(number, Decimal) and number.is_finite() and number.adjusted() < 19 and number % 1 == 0:
        return int(number)
    return number


def _policy(value: object) -> object:
    """A scheduling policy: JSON in a string, as documented, or the object itself."""
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    return value


def _policy_text(text: str) -> str:
    strategy_of(text)
    return text


def strategy_of(policy: str) -> Strategy:
    """The strategy that a `scheduling_policy_json` asks for; ValueError if it isn't JSON or the strategy is unknown."""
    try:
        decoded: Any = json.loads(policy) if policy.strip() else {}
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON object in a string") from None
    if not isinstance(decoded, dict):
        raise _wrong("must be a JSON object in a string")
    wanted = decoded.get("strategy") or snake(Strategy.BEST_FIT)
    if not isinstance(wanted, str):
        raise _wrong(f"strategy must be one of {[snake(word) for word in Strategy]}")
    try:
        return word_of(Strategy, wanted)
    except ValueError as error:
        raise ValueError(f"strategy {error}") from None


#: A uid that a client sends in a body.
Id = Annotated[str, BeforeValidator(_id), Field(json_schema_extra={"format": "uuid"})]
#: US dollars: a JSON number or a decimal string; kept as a decimal string, at most nine decimals.
Dollars = Annotated[str, BeforeValidator(_money, json_schema_input_type=float | str)]
Whole = Annotated[int, BeforeValidator(integral, json_schema_input_type=int)]
OwnerWord = Annotated[str, AfterValidator(_owner_type)]
#: The JSON of a policy; "" and "{}" are the default.
Policy = Annotated[
    str,
    Field(max_length=4096),
    AfterValidator(_policy_text),
    BeforeValidator(_policy, json_schema_input_type=str | dict[str, Any]),
]
