"""The OpenAPI document, built from the operations and their models: it can't say anything else than what is served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cal_api import replies
from cal_api.operation import Operation

_REF = "#/components/schemas/{model}"
#: What every route may answer: beyond its own codes, these come from the door and from the API server.
ANYWHERE = {
    403: "Host or Origin isn't this machine, or the API server doesn't allow it.",
    503: "The API server can't be asked just now; see Retry-After.",
}
#: What routes with a body may answer besides.
WITH_BODY = {413: "The body is too large.", 415: "The body isn't declared as JSON."}


def codes(operation: Operation) -> dict[int, str]:
    """Every status code that a route documents."""
    body = {400: "A bad value.", **WITH_BODY} if operation.body else {}
    return dict(sorted({operation.success: "Success.", **ANYWHERE, **body, **operation.codes}.items()))


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The whole document. Aliases aren't listed: they are the same operations under another prefix."""
    listed = tuple(operations)
    inputs = {model for op in listed for model in (op.body,) if model}
    outputs = {op.reply for op in listed} | {replies.Problem}
    pairs: list[Any] = [(m, "validation") for m in inputs] + [(m, "serialization") for m in outputs]
    pairs.sort(key=lambda pair: (pair[1], pair[0].__name__))
    names, schemas = models_json_schema(pairs, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for op in listed:
        paths.setdefault(op.public_path, {})[op.method.lower()] = _operation(op, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Compute Abstraction Layer", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


_ABOUT = (
    "One REST API for GPU compute from many providers. Every route but the inventory's also answers under /deployment, /v1/deployment "
    "and /api/v1/deployment; the inventory's under /v1 and /api/v1."
)


def _operation(op: Operation, names: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": op.handler.__name__,
        "summary": op.summary,
        "parameters": [_path_parameter(name) for name in op.parameters]
        + _query_parameters(op.query)
        + [_header_parameter(name, about) for name, about in op.headers.items()],
        "responses": {str(code): _response(op, code, text, names) for code, text in codes(op).items()},
    }
    if op.body:
        schema = names[op.body, "validation"]
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _header_parameter(name: str, about: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": about, "schema": {"type": "string"}}


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _present(field)}
        for name, field in schema["properties"].items()
    ]


def _present(field: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is a value or absent, never null."""
    options = [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
    whole = {**{k: v for k, v in field.items() if k not in ("anyOf", "title")}, **(options[0] if options else {})}
    return {key: value for key, value in whole.items() if not (key == "default" and value is None)}


def _response(op: Operation, code: int, text: str, names: Any) -> dict[str, Any]:
    model = op.reply if code == op.success else replies.Problem
    return {"description": text, "content": {"application/json": {"schema": names[model, "serialization"]}}}
