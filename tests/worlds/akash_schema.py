"""The stand-in's conscience: every request and every answer is held against `akash_openapi.yaml`, and an SDL against the provider's schema."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator

_HERE: Final = Path(__file__).parent
#: By the identity of a schema within the one document, which lives as long as the process.
_VALIDATORS: Final[dict[int, Validator]] = {}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, as data."""
    loaded: dict[str, Any] = yaml.safe_load((_HERE / "akash_openapi.yaml").read_text())
    return loaded


class Operations:
    """What each operation takes and answers."""

    def __init__(self) -> None:
        self._known = {
            operation["operationId"]: (path, operation, item.get("parameters", []))
            for path, item in document()["paths"].items()
            for method, operation in item.items()
            if method in ("get", "post", "put", "delete")
        }

    def wrong_request(self, name: str, path: dict[str, str], query: dict[str, str], body: Any) -> list[str]:
        """What is wrong with a request; nothing if it is fine. `body`: parsed JSON, or None."""
        _, operation, shared = self._known[name]
        wrong = []
        for parameter in [*shared, *operation.get("parameters", [])]:
            given = (path if parameter["in"] == "path" else query).get(parameter["name"])
            if given is None and parameter.get("required"):
                wrong.append(f"{parameter['name']}: Required")
            elif given is not None:
                wrong += [
                    f"{parameter['name']}: {each}"
                    for each in _errors(parameter["schema"], _typed(given, parameter["schema"]))
                ]
        if content := operation.get("requestBody"):
            wrong += _errors(content["content"]["application/json"]["schema"], body)
        return wrong

    def wrong_answer(self, name: str, status: int, body: Any) -> list[str]:
        """What is wrong with an answer of ours."""
        answers = self._known[name][1]["responses"]
        answer = answers.get(str(status)) or document()["components"]["responses"]["Failure"]
        if str(status) not in answers and status < 400:
            return [f"{status} is not documented"]
        return _errors(answer["content"]["application/json"]["schema"], body)


def _typed(given: str, schema: dict[str, Any]) -> Any:
    return int(given) if schema.get("type") == "integer" and re.fullmatch(r"-?[0-9]{1,15}", given) else given


def _errors(schema: dict[str, Any], value: Any) -> list[str]:
    if id(schema) not in _VALIDATORS:
        # The components travel along, so that references resolve within the document itself.
        whole = {**schema, "components": document()["components"]}
        _VALIDATORS[id(schema)] = Draft202012Validator(whole, format_checker=FormatChecker())
    found = _VALIDATORS[id(schema)].iter_errors(value)
    return [f"{'.'.join(map(str, error.path)) or '.'} {error.message[:200]}" for error in found]


class SDLSchema:
    """The provider's own schema of an SDL, out of its package; None: nothing is checked here."""

    def __init__(self, path: Path | None) -> None:
        self._validator = Draft7Validator(yaml.safe_load(path.read_text())) if path else None

    def errors(self, sdl: Any) -> list[str]:
        if self._validator is None:
            return [] if isinstance(sdl, dict) else ["not an object"]
        return [f"{error.message[:200]}" for error in self._validator.iter_errors(sdl)][:5]
