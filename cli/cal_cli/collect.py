"""What Kubernetes' garbage collector does in a cluster, for the API server of `calctl up`, beside which none runs: the Secrets and kept
logs of a deployment go after it.

Nodes aren't its business: they are paid for, and the operator lets go of them once that has ended.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from cal_cli.errors import Failure
from cal_cli.kube import Body, Kube
from cal_crds.meta import DEPLOYMENT, LABEL_DEPLOYMENT

_EVERY: Final = 20.0
_DEPENDENTS: Final = ("secrets", "configmaps")


def collecting(kubeconfig: Path, stop: threading.Event) -> None:
    """Collects until `stop` is set. An API server that is away just now is asked again."""
    kube = Kube(kubeconfig)
    while not stop.wait(_EVERY):
        try:
            collect(kube)
        except Failure:
            continue  # the supervisor starts it again, and says so


def collect(kube: Kube) -> None:
    """Deletes what only owners that are gone had. No content is read: only names, labels and owners."""
    # Dependents first: an owner that is older than its dependents can't be missed by the list after it.
    owned = [
        (plural, body)
        for plural in _DEPENDENTS
        for body in kube.metadata(f"/api/v1/{plural}", LABEL_DEPLOYMENT)
        if _owners(body)
    ]
    if not owned:
        return
    there = {body["metadata"]["uid"] for body in kube.metadata(DEPLOYMENT.path())}
    for plural, body in owned:
        if not _owners(body) & there:
            metadata = body["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"
            kube.delete(path, uid=metadata["uid"])


def _owners(body: Body) -> set[str]:
    """Uids of its owners; none if one of them is of a kind that isn't looked at here."""
    references = body["metadata"].get("ownerReferences") or []
    known = all(reference["kind"] == DEPLOYMENT.name for reference in references)
    return {reference["uid"] for reference in references} if known else set()
