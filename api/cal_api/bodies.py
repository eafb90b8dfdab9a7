"""Request bodies: bytes -> checked JSON -> model. What passes here can be stored, printed and written to a terminal.

JSON allows much that Kubernetes doesn't, or that readers disagree on: duplicate keys, NaN, numbers beyond any type, lone surrogates,
NUL, endless nesting. All of it ends here with a 400 that says what and where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from cal_api.backend import backend
from cal_api.errors import BadRequest, TooLarge, UnsupportedMediaType, bad, shown
from cal_api.redact import SECRET_NAME

MAX_DEPTH = 32
_LARGEST = 2**63
_UNPRINTABLE = re.compile("[\x00\ud800-\udfff]")

#: What the patterns of `requests` mean, in words for a person.
_PATTERNS: Mapping[str, str] = {
    r"^[^\x00-\x1f\x7f]*$": "must hold no control characters",
    r"^https?://[^\s\x00-\x1f\x7f]+$": "must be an http or https URL",
}

M = TypeVar("M", bound=BaseModel)


async def read(request: Request, model: type[M]) -> M:
    """The body as `model`; null means absent. BadRequest names the first few fields that are wrong."""
    raw = await _bounded(request, backend(request).settings.max_body)
    if raw and not _is_json(request.headers.get("content-type", "")):
        raise UnsupportedMediaType("Content-Type must be application/json")
    return parse(decode(raw), model)


async def _bounded(request: Request, most: int) -> bytes:
    """The raw body; TooLarge as soon as it is, without reading the rest."""
    told = request.headers.get("content-length", "")
    whole = bytearray()
    if not (told.isdecimal() and int(told[:20]) > most):
        async for chunk in request.stream():
            whole += chunk
            if len(whole) > most:
                break
        else:
            return bytes(whole)
    raise TooLarge(f"body: more than {most} bytes")


def parse(body: Mapping[str, Any], model: type[M]) -> M:
    """A decoded object as `model`; BadRequest names the first few fields that are wrong."""
    try:
        return model.model_validate({key: value for key, value in body.items() if value is not None})
    except ValidationError as error:
        raise BadRequest(explain(error)) from error


def decode(raw: bytes) -> dict[str, Any]:
    """A JSON object, checked. Numbers with a point are Decimals."""
    if not raw:
        raise BadRequest("body: is empty; must be a JSON object")
    try:
        body = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_float=Decimal, parse_constant=_no_constant
        )
    except RecursionError as error:
        raise BadRequest(f"body: nested too deeply; at most {MAX_DEPTH} levels") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"body: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise BadRequest(f"body: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise BadRequest("body: a number has too many digits") from error
    if not isinstance(body, dict):
        raise BadRequest("body: must be a JSON object")
    _check(body)
    return body


def explain(error: ValidationError, prefix: str = "") -> str:
    """What is wrong, field by field (the first three)."""
    return "; ".join(_sentence(detail, prefix) for detail in error.errors(include_url=False)[:3])


def _sentence(detail: ErrorDetails, prefix: str) -> str:
    where = ".".join([*([prefix] if prefix else []), *map(str, detail["loc"])]) or "body"
    if detail["type"] == "missing":
        return f"{where}: is required"
    pattern = str(detail.get("ctx", {}).get("pattern"))
    message = _PATTERNS.get(pattern) or detail["msg"].removeprefix("Value error, ")
    # A wrong value of something secret must not come back in an error, which is logged along the way.
    secret = SECRET_NAME.search(where) or ".env" in where
    value = "this value" if secret else shown(detail["input"])
    return f"{where}: {value} is not allowed; {message[:1].lower()}{message[1:]}"


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise BadRequest(f"body: the key {shown(_first_double(pairs))} stands there twice")
    return result


def _first_double(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("called where there is one")


def _no_constant(word: str) -> None:
    raise BadRequest(f"body: {word} is not JSON")


def _check(body: dict[str, Any]) -> None:
    """Refuse what can't be stored. Not recursive: the depth is what it checks."""
    todo: list[tuple[_Path, Any, int]] = [((), body, 1)]
    while todo:
        path, value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise BadRequest(f"{_where(path)}: nested too deeply; at most {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key, item in value.items():
                _check_text(path, key)
                todo.append(((path, key), item, depth + 1))
        elif isinstance(value, list):
            todo += [((path, index), item, depth + 1) for index, item in enumerate(value)]
        else:
            _check_scalar(path, value)


#: Where a value stands: (the path of what holds it, its key or index). Put into words only for a refusal: for each of many values
#: under one long key, the words would take far more room than the body.
_Path = tuple[Any, ...]


def _where(path: _Path) -> str:
    names: list[str] = []
    while path:
        path, name = path
        names.append(str(name))
    return shown(".".join(reversed(names)), 200)[1:-1] or "body"


def _check_scalar(path: _Path, value: object) -> None:
    if isinstance(value, str):
        _check_text(path, value)
    elif isinstance(value, Decimal):
        if not -300 < value.adjusted() < 300:
            raise bad(_where(path), value, "must be a number within reach")
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        raise bad(_where(path), value, "must be a number below 2^63")


def _check_text(path: _Path, text: str) -> None:
    if _UNPRINTABLE.search(text):
        raise BadRequest(f"{_where(path)}: holds a NUL or half of a surrogate pair, which can't be stored")
