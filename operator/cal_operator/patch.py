"""What changed between two statuses, as a merge patch; and its write."""

from __future__ import annotations

from typing import Any

from cal_crds.base import Model


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that makes `new` of `old`: nested objects field by field, lists whole, null for what goes."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif before != value or key not in old:
            patch[key] = value
    return patch


def status_patch(old: Model, new: Model) -> dict[str, Any]:
    """The change of a status, empty if there is none. Equal lists (conditions) are left out, changed ones go whole."""
    changed = {name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)}
    # Only what differs is written out: most of a status stays as it is.
    return merge_patch(old.dump(only=changed), new.dump(only=changed)) if changed else {}
