"""What `calctl get` lists: for each kind where the api serves it, and which columns a person wants to see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cal_cli import spending
from cal_cli.errors import Failure
from cal_cli.kube import Kube
from cal_cli.rest import Body, Rest, why
from cal_cli.table import age
from cal_crds.meta import DEPLOYMENT, NODE, POOL, PROVIDER, Kind

_PAGE = 500


@dataclass(frozen=True)
class Scope:
    """Where to look: the api, whose things, and (where there is one) the API server behind it."""

    rest: Rest
    owner: str | None = None
    kubeconfig: Path | None = None

    def kube(self, why: str) -> Kube:
        if self.kubeconfig is None:
            raise Failure(f"{why} needs a kubeconfig: none is known for {self.rest.base} (give --kubeconfig)")
        return Kube(self.kubeconfig)


@dataclass(frozen=True)
class Column:
    """A heading, and how its cell comes from a REST item."""

    title: str
    cell: Callable[[Body], Any]
    wide: bool = False


@dataclass(frozen=True)
class Resource:
    """A kind as calctl shows it."""

    name: str
    fetch: Callable[[Scope], list[Body]]
    columns: Sequence[Column]
    id_key: str
    name_keys: tuple[str, ...]
    kind: Kind | None = None

    def rows(self, items: list[Body], wide: bool) -> tuple[list[str], list[list[Any]]]:
        columns = [column for column in self.columns if wide or not column.wide]
        return [column.title for column in columns], [[column.cell(item) for column in columns] for item in items]


def _field(key: str) -> Callable[[Body], Any]:
    return lambda item: item.get(key)


def _col(title: str, key: str, wide: bool = False) -> Column:
    return Column(title, _field(key), wide)


def _money() -> tuple[Column, ...]:
    return Column("USD SO FAR", spending.so_far), Column("USD/H", spending.rate, wide=True)


def _age(key: str) -> Column:
    return Column("AGE", lambda item: age(item.get(key)))


def _providers(scope: Scope) -> list[Body]:
    known = scope.rest.get("/inventory/providers").get("providers") or {}
    return [{"name": name, **entry, **(entry.get("capabilities") or {})} for name, entry in sorted(known.items())]


def _offers(scope: Scope) -> list[Body]:
    return list(scope.rest.get("/provider/resources").get("resources") or [])


def _pools(scope: Scope) -> list[Body]:
    return paged(scope.rest, f"/listPools/{_segment(scope.owner)}" if scope.owner else "/pools", "pools")


def _deployments(scope: Scope) -> list[Body]:
    found = paged(scope.rest, "/deployments", "deployments")
    return [item for item in found if scope.owner in (None, item.get("owner_id"))]


def _nodes(scope: Scope) -> list[Body]:
    providers = scope.rest.get("/inventory/providers").get("providers") or {}
    lists = [scope.rest.get(f"/inventory/nodes/{_segment(name)}").get("nodes") or [] for name in sorted(providers)]
    return [item for items in lists for item in items]


def paged(rest: Rest, path: str, key: str) -> list[Body]:
    """A whole list, page by page."""
    found: list[Body] = []
    while True:
        body = rest.get(path, limit=_PAGE, offset=len(found))
        page = body.get(key) or []
        found += page
        if not page or len(found) >= int(body.get("total", len(found))):
            return found


def _segment(text: str) -> str:
    return quote(text, safe="")


def _replicas(item: Body) -> str | None:
    """Answering and wanted ones. Of an endpoint that somebody else runs, nobody counts any."""
    if item.get("workload_type") == "external":
        return None
    return f"{item.get('ready_replicas', 0)}/{item.get('replicas', 0)}"


def _gpus(item: Body) -> str:
    return f"{item.get('gpu_allocated', 0)}/{item.get('gpu_total', 0)}"


RESOURCES = {
    resource.name: resource
    for resource in (
        Resource(
            "providers",
            _providers,
            (
                _col("NAME", "name"),
                _col("TYPE", "adapter_type"),
                _col("PRICING", "pricing_model"),
                Column("EPHEMERAL", lambda item: "yes" if item.get("is_ephemeral") else "no"),
                Column("LOGS", lambda item: "stream" if item.get("supports_log_streaming") else "tail"),
                Column("FEATURES", lambda item: [k for k, v in (item.get("features") or {}).items() if v], wide=True),
            ),
            "name",
            ("name",),
            PROVIDER,
        ),
        Resource(
            "offers",
            _offers,
            (
                _col("PROVIDER", "provider"),
                _col("OFFER", "provider_resource_id"),
                _col("GPU", "gpu_type"),
                _col("COUNT", "gpu_count"),
                _col("GPU GB", "gpu_memory_gb"),
                _col("VCPU", "vcpu"),
                _col("RAM GB", "ram_gb"),
                _col("REGION", "region"),
                _col("USD/H", "price_per_hour"),
                _col("PRICING", "pricing_model", wide=True),
            ),
            "provider_resource_id",
            ("provider_resource_id",),
        ),
        Resource(
            "pools",
            _pools,
            (
                _col("NAME", "pool_name"),
                _col("PROVIDER", "provider"),
                _col("STATE", "state"),
                _col("GPU TYPES", "allowed_gpu_types"),
                _col("MAX USD/H", "max_cost_per_hour"),
                *_money(),
                _age("created_at"),
                _col("ID", "pool_id"),
                _col("OWNER", "owner_id", wide=True),
                _col("PROVIDER POOL", "provider_pool_id", wide=True),
                _col("CREDENTIAL", "provider_credential_name", wide=True),
                Column("MESSAGE", why, wide=True),
            ),
            "pool_id",
            ("pool_name",),
            POOL,
        ),
        Resource(
            "deployments",
            _deployments,
            (
                _col("MODEL", "model_name"),
                _col("STATE", "state"),
                Column("READY", _replicas),
                _col("ENDPOINT", "endpoint"),
                *_money(),
                _age("created_at"),
                _col("ID", "deployment_id"),
                _col("POOL", "pool_id", wide=True),
                _col("ENGINE", "engine", wide=True),
                Column("MESSAGE", why, wide=True),
            ),
            "deployment_id",
            ("model_name",),
            DEPLOYMENT,
        ),
        Resource(
            "nodes",
            _nodes,
            (
                _col("NAME", "hostname"),
                _col("PROVIDER", "provider"),
                _col("STATE", "state"),
                Column("GPUS", _gpus),
                _col("INSTANCE", "provider_instance_id"),
                *_money(),
                _age("created_at"),
                _col("ID", "id"),
                _col("ENDPOINT", "expose_url", wide=True),
                _col("HEALTH", "health_score", wide=True),
                _col("LAST BEAT", "last_heartbeat", wide=True),
                Column("MESSAGE", why, wide=True),
            ),
            "id",
            ("hostname", "provider_instance_id"),
            NODE,
        ),
    )
}


def one(resource: Resource, scope: Scope, wanted: str) -> Body:
    """The item that `wanted` means: its id, or a name that only one bears."""
    items = resource.fetch(scope)
    by_id = [item for item in items if item.get(resource.id_key) == wanted]
    named = by_id or [item for item in items if wanted in [item.get(key) for key in resource.name_keys]]
    if not named and resource.kind and scope.kubeconfig:
        uids = {body["metadata"]["uid"] for body in scope.kube("").items(resource.kind.path()) if _is(body, wanted)}
        named = [item for item in items if item.get(resource.id_key) in uids]
    if not named:
        raise Failure(f"no {resource.name.removesuffix('s')} {wanted!r}")
    if len(named) > 1:
        ids = ", ".join(str(item.get(resource.id_key)) for item in named[:5])
        raise Failure(f"{len(named)} {resource.name} are named {wanted!r}; give the id of one: {ids}")
    return named[0]


def behind(resource: Resource, scope: Scope, items: list[Body]) -> list[Body]:
    """The Kubernetes objects behind REST items, as `kubectl get -o yaml` would show them."""
    if resource.kind is None:
        return items
    by_uid = resource.name != "providers"
    wanted = {item.get(resource.id_key) for item in items}
    found = scope.kube("-o yaml").items(resource.kind.path())
    kept = [body for body in found if body["metadata"]["uid" if by_uid else "name"] in wanted]
    for body in kept:
        body["metadata"].pop("managedFields", None)
    head = {"apiVersion": "calayer.dev/v1alpha1", "kind": resource.kind.name}
    return [{**head, **body} for body in kept]


def _is(body: Body, name: str) -> bool:
    return bool(body["metadata"]["name"] == name)
