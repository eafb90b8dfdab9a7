"""What the adapter's account must be allowed in a cluster, as the rules of a ClusterRole. docs/adapters/k8s.md shows the same."""

from __future__ import annotations

from typing import Any, Final

RULES: Final[tuple[dict[str, Any], ...]] = (
    # Offers.
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
    # Which cluster this is (kube-system's uid), and whether a provider_pool_id is a namespace.
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    # Never read: an instance's Secrets are written and deleted.
    {"apiGroups": [""], "resources": ["secrets", "services"], "verbs": ["create", "patch", "delete"]},
)
