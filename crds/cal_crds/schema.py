"""From pydantic to structural schemas: what a CustomResourceDefinition may hold, out of what pydantic emits.

Pydantic's JSON schema is right but not structural: it shares parts by `$ref`, writes optional as `anyOf` with null and
`default: null`, and uses words that the API server refuses. Everything unknown is refused here, never passed on.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT: Final = frozenset(
    {
        "type", "format", "description", "enum", "default", "pattern", "minLength", "maxLength", "minimum", "maximum",
        "minItems", "maxItems", "required",
        "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations",
    }
)  # fmt: skip
#: Said by pydantic, of no use to the API server. `additionalProperties: false` is what pruning does anyway.
_DROPPED: Final = frozenset({"title", "$defs", "examples"})
#: Defaults that say nothing: the API server would write them into every object.
_EMPTY: Final[tuple[Any, ...]] = (None, "", [])
_INT32: Final = 2**31 - 1


class NotStructural(ValueError):
    """A model uses something that no structural schema can say. The message names the place."""


def structural(model: type[BaseModel]) -> Schema:
    """The structural OpenAPI v3 schema of a model, without references. Raises NotStructural."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(whole, whole.get("$defs", {}), model.__name__)


def _convert(schema: Schema, shared: dict[str, Schema], place: str) -> Schema:
    result: Schema = {}
    for key, value in _resolve(schema, shared, place).items():
        if key == "properties":
            result[key] = {name: _convert(part, shared, f"{place}.{name}") for name, part in value.items()}
        elif key == "items":
            result[key] = _convert(value, shared, f"{place}[]")
        elif key in _KEPT:
            result[key] = value
        elif not (key in _DROPPED or (key == "additionalProperties" and value is False)):
            raise NotStructural(f"{place}: {key}: {value!r} has no place in a structural schema")
    return _finish(result)


def _resolve(schema: Schema, shared: dict[str, Schema], place: str) -> Schema:
    """The schema with its `$ref`, its only real `anyOf` branch and its `const` written out; what stands beside them wins."""
    own = dict(schema)
    if "$ref" in own:
        own = {**shared[own.pop("$ref").removeprefix("#/$defs/")], **own}
        return _resolve(own, shared, place)
    if "anyOf" in own:
        branches = [branch for branch in own.pop("anyOf") if branch != {"type": "null"}]
        if len(branches) != 1:
            raise NotStructural(f"{place}: a choice of {len(branches)} types; a field has one")
        return _resolve({**branches[0], **own}, shared, place)
    if "const" in own:
        own["enum"] = [own.pop("const")]
    for exclusive, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        if exclusive in own:
            own[bound] = own.pop(exclusive) + step
    return own


def _finish(schema: Schema) -> Schema:
    """Defaults without content go, descriptions are one line, integers say their width."""
    if "default" in schema and schema["default"] in _EMPTY:
        del schema["default"]
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if schema.get("type") == "integer":
        widest = max(abs(schema.get("minimum", -_INT32 - 2)), abs(schema.get("maximum", _INT32 + 1)))
        schema.setdefault("format", "int32" if widest <= _INT32 else "int64")
    return schema
