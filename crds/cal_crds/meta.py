"""Names that everybody must agree on: group, kinds, labels, annotations, finalizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROUP: Final = "calayer.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
#: The `Accept` header of those who want a collection's metadata alone.
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
CATEGORY: Final = "cal"

#: Ours alone; never the name that kopf uses for its own, or kopf would strip it.
FINALIZER: Final = f"{GROUP}/cleanup"


@dataclass(frozen=True)
class Kind:
    """One of our kinds, as the API server addresses it."""

    name: str
    plural: str
    short: str
    namespaced: bool = True

    @property
    def singular(self) -> str:
        return self.name.lower()

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection (all namespaces when `namespace` is None), of an object, or of a subresource."""
        parts = ["/apis", GROUP, VERSION]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


PROVIDER: Final = Kind("ComputeProvider", "computeproviders", "cprov", namespaced=False)
POOL: Final = Kind("ComputePool", "computepools", "cpool")
DEPLOYMENT: Final = Kind("ModelDeployment", "modeldeployments", "mdep")
NODE: Final = Kind("ComputeNode", "computenodes", "cnode")
KINDS: Final = (PROVIDER, POOL, DEPLOYMENT, NODE)

# Labels. Values are uids, provider names or hashes (`names.label_hash`): raw owner and model names may hold any character.
LABEL_DEPLOYMENT: Final = f"{GROUP}/deployment-uid"
LABEL_POOL: Final = f"{GROUP}/pool-uid"
LABEL_PROVIDER: Final = f"{GROUP}/provider"
LABEL_OWNER: Final = f"{GROUP}/owner-hash"
LABEL_ORGANIZATION: Final = f"{GROUP}/organization-hash"
LABEL_MODEL: Final = f"{GROUP}/model-hash"
LABEL_NODE: Final = f"{GROUP}/node-uid"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
#: On every ConfigMap that holds the last log lines of a node; value "logs". See `archive.py`.
#: On every ConfigMap that holds a digest of heartbeats; value "heartbeats". See `heartbeats.py`.
LABEL_CONTENT: Final = f"{GROUP}/content"

#: The installation id of the mark that an instance carries at its provider, and the token of its node. Used by adapters
#: whose instances are Kubernetes objects.
LABEL_INSTALLATION: Final = f"{GROUP}/installation"
LABEL_TOKEN: Final = f"{GROUP}/token"

#: Which request made a deployment, where its client named it (`Idempotency-Key`), and a hash of what was asked for.
LABEL_REQUEST: Final = f"{GROUP}/request"
ANNOTATION_REQUEST: Final = f"{GROUP}/request-content"

#: JSON of what REST sent and no field holds, redacted; for the echo only.
ANNOTATION_REST: Final = f"{GROUP}/rest"
#: Set by an admin on a ComputeNode: let go of an instance that nobody can prove gone. Says so in an Event.
ANNOTATION_ABANDON: Final = f"{GROUP}/abandon"
#: Field manager of the api; objects that it created carry LABEL_MANAGED_BY with this value (only these have a TTL).
MANAGER_API: Final = "cal-api"
#: Field manager of the operator.
MANAGER_OPERATOR: Final = "cal-operator"
