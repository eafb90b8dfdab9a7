"""`calctl get`: tables for people, JSON for programs, YAML for whoever wants the resource behind it."""

from __future__ import annotations

import json

import yaml

from cal_cli.resources import RESOURCES, Resource, Scope, behind, one
from cal_cli.rest import Body
from cal_cli.table import table


def get(kind: str, wanted: str | None, output: str, scope: Scope) -> str:
    """What to print. `output`: table, wide, json or yaml."""
    resource = RESOURCES[kind]
    if wanted is None:
        items = resource.fetch(scope)
    else:
        items = [_detail(resource, scope, one(resource, scope, wanted), output)]
    if output == "yaml":
        return _yaml(behind(resource, scope, items), single=wanted is not None)
    if output == "json":
        return json.dumps(items[0] if wanted is not None else items, indent=2)
    header, rows = resource.rows(items, wide=output == "wide")
    return table(header, rows) if rows else f"no {kind}"


def _detail(resource: Resource, scope: Scope, item: Body, output: str) -> Body:
    """A single one has more to say than its line in a list."""
    if output == "json" and resource.name in ("pools", "deployments"):
        path = {"pools": "pool", "deployments": "status"}[resource.name]
        return scope.rest.get(f"/{path}/{item[resource.id_key]}")
    return item


def _yaml(items: list[Body], *, single: bool) -> str:
    if single and len(items) == 1:
        return yaml.safe_dump(items[0], sort_keys=False).rstrip()
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}, sort_keys=False).rstrip()
