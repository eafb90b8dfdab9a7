"""`docs/resources.md`: the user's manual of the resources, generated from the same models as the CRDs."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from cal_crds import conditions, crd
from cal_crds.engines import ENGINES
from cal_crds.meta import API_VERSION, CATEGORY, DEPLOYMENT, KINDS, Kind
from cal_crds.schema import Schema

_HEAD: Final = f"""\
# Resources

<!-- Generated from the models in cal_crds by `python -m cal_crds`; edit those. -->

Four kinds in `{API_VERSION}`. `kubectl get {CATEGORY}` shows all of them, `kubectl explain mdep.spec` says what stands here.
Times are RFC 3339, money is US dollars as a decimal string, and a field that is left out has the default, if it has one.
"""
_KSTATUS: Final = """\
## What tools read

`Ready=True` means that the wish is met, also when the wish is zero, stopped or terminated. `Reconciling` and `Stalled` are True only when
something is under way, or stuck until the spec changes. `status.observedGeneration` says which generation all of this is about; it is -1
until the operator has seen the object. So `kubectl wait --for=condition=Ready`, Helm's `--wait` and Flux need nothing else. For Argo CD see
`examples/gitops`.
"""


def render() -> str:
    """The whole page."""
    parts = [_HEAD, *(_kind(kind) for kind in KINDS), _engines(), _KSTATUS, _words()]
    return "\n".join(parts)


def _kind(kind: Kind) -> str:
    whole = crd.schema(kind)
    scope = "in a namespace" if kind.namespaced else "for the whole cluster"
    extra = [f"`kubectl get {kind.short}`", scope, f"field selectors {_listed(crd.SELECTABLE[kind])}"]
    if kind is DEPLOYMENT:
        extra.append("`kubectl scale`")
    lines = [f"## {kind.name}", "", whole["description"], "", " · ".join(extra), ""]
    for part in ("spec", "status"):
        schema = whole["properties"][part]
        lines += [f"### {kind.name} {part}", "", *_table(schema), *_rules(schema)]
    return "\n".join(lines)


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{word.removeprefix('.')}`" for word in words)


def _table(schema: Schema) -> Iterator[str]:
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for path, part, required in _fields(schema):
        default = f"`{json.dumps(part['default'])}`" if "default" in part else "*required*" if required else ""
        yield f"| `{path}` | {_type(part)} | {default} | {_cell(part.get('description', ''))} |"
    yield ""


def _fields(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Schema, bool]]:
    for name, part in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, part, name in schema.get("required", [])
        if path == "conditions":
            continue
        inner = part.get("items", part)
        yield from _fields(inner, f"{path}[]." if "items" in part else f"{path}.")


def _type(part: Schema) -> str:
    if "enum" in part:
        return " \\| ".join(f"`{word}`" for word in part["enum"])
    if part["type"] == "array":
        return f"list of {_type(part['items'])}, at most {part['maxItems']}"
    if part["type"] == "integer":
        return f"integer {part['minimum']} to {part['maximum']}"
    return "time" if part.get("format") == "date-time" else str(part["type"])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rules(schema: Schema) -> list[str]:
    messages = list(_messages(schema))
    return ["Refused, with these words:", "", *(f"- {message}" for message in messages), ""] if messages else []


def _messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    for part in schema.get("properties", {}).values():
        yield from _messages(part)
    if "items" in schema:
        yield from _messages(schema["items"])


def _engines() -> str:
    rows = [
        f"| `{name}` | `{engine.image}` | {engine.port} | `{engine.health}` | {f'`{engine.key}`' if engine.key else 'knows none'} |"
        for name, engine in ENGINES.items()
    ]
    head = [
        "## Engines",
        "",
        "What `workload.engine` implies, each part unless it is given. The API key is derived for each deployment and given to the engine",
        "in that variable when a node is bought; it stands in no object. `docs/api.md` says how to get it and how to bring your own.",
        "",
    ]
    return "\n".join([*head, "| engine | image | port | probe | API key |", "|---|---|---|---|---|", *rows, ""])


def _words() -> str:
    lines = ["## Condition types", "", *_documented(conditions.Type), ""]
    lines += ["## Reasons", "", *_documented(conditions.Reason), ""]
    return "\n".join(lines)


def _documented(words: type[StrEnum]) -> Iterator[str]:
    """Each word of an enum with the `#:` comment above it, which Python itself doesn't keep."""
    source = inspect.getsource(words)
    for comment, name in re.findall(r"((?:^ +#: .*\n)+) +(\w+) =", source, re.MULTILINE):
        meaning = " ".join(line.strip().removeprefix("#:").strip() for line in comment.splitlines())
        yield f"- `{words[name].value}`: {meaning}"
