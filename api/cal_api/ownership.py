"""Who owns which field: the rules of server-side apply, as this API meets them.

An apply replaces everything that the same manager applied before: what is left out is given up. So each change starts from what
`managedFields` says this API owns in the live object, and adds to it. Objects that REST creates are created by apply too (an object
created by POST would be owned by a second, "Update" manager of the same name, and the first apply would conflict with ourselves).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cal_crds.cluster import Conflict
from cal_crds.meta import LABEL_MANAGED_BY

_HELM = "meta.helm.sh/release-name"
_FLUX = ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name")
_ARGO = ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance")
#: Field manager, or the start of it -> what people call it.
_MANAGERS = {
    "argocd": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "flux": "Flux",
    "helm": "Helm",
}


def applied(body: Mapping[str, Any], manager: str) -> dict[str, Any]:
    """What `manager` last applied, out of a live object: the intent that the next apply must repeat."""
    for entry in body["metadata"].get("managedFields") or []:
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            owned = _owned(body, entry.get("fieldsV1") or {})
            return owned if isinstance(owned, dict) else {}
    return {}


def _owned(value: Any, fields: Mapping[str, Any]) -> Any:
    """The part of `value` that a fieldsV1 set names."""
    below = {key: inner for key, inner in fields.items() if key != "."}
    if not below:
        return value
    if isinstance(value, dict):
        names = {key[2:]: inner for key, inner in below.items() if key.startswith("f:")}
        return {name: _owned(value[name], inner) for name, inner in names.items() if name in value}
    if isinstance(value, list):
        return [part for item in value if (part := _item(item, below)) is not None]
    return value


def _item(item: Any, fields: Mapping[str, Any]) -> Any:
    """An item of a list, if the set names it: by its keys ("k:"), or as a value of a set ("v:")."""
    for key, inner in fields.items():
        if key.startswith("v:") and json.loads(key[2:]) == item:
            return item
        if key.startswith("k:") and isinstance(item, dict):
            names: dict[str, Any] = json.loads(key[2:])
            if names.items() <= item.items():
                return {**names, **_owned(item, inner)}
    return None


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change`: objects are merged, all else is replaced; None takes a field out."""
    result = dict(base)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            below = result.get(name)
            result[name] = merged(below if isinstance(below, dict) else {}, value)
        else:
            result[name] = value
    return result


def conflicting(error: Conflict) -> str | None:
    """The refusal of an apply, for a person: which fields belong to whom. None if it was only a stale version."""
    causes = (error.body.get("details") or {}).get("causes") or []
    owned = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if not owned:
        return None
    parts = [f"{str(cause.get('field', '')).lstrip('.')} ({cause.get('message', '')})" for cause in owned]
    return f"Another manager owns what this would change: {', '.join(parts)}. Change it there, or have it let go of the field"


def managed_by(metadata: Mapping[str, Any]) -> str | None:
    """The tool that will bring this object back to what its source says: "Helm release x", "Flux", "Argo CD"; None if none does."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    known = {**labels, **annotations}
    if any(key in known for key in _ARGO):
        return "Argo CD"
    if any(key in known for key in _FLUX):
        return "Flux"
    if _HELM in annotations:
        return f"Helm release {annotations[_HELM]}"
    if labels.get(LABEL_MANAGED_BY) == "Helm":
        return "Helm"
    return _by_fields(metadata.get("managedFields") or [])


def _by_fields(entries: list[dict[str, Any]]) -> str | None:
    managers = [str(entry.get("manager", "")).lower() for entry in entries if not entry.get("subresource")]
    return next((name for start, name in _MANAGERS.items() if any(m.startswith(start) for m in managers)), None)


def warning(manager: str) -> str:
    """The value of the `Warning` header for a write to an object that `manager` keeps in line."""
    text = f"managed by {manager}, whose next sync may undo this"
    return f'299 cal-api "{"".join(c if 32 <= ord(c) < 127 and c not in chr(34) + chr(92) else "?" for c in text)}"'
