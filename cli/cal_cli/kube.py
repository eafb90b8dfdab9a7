"""The API server as calctl needs it: a few verbs on paths, synchronous, errors as one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pykube
import requests
import yaml

from cal_cli.errors import Failure
from cal_crds.loopback import leads_here
from cal_crds.meta import KINDS, METADATA_ONLY

Body = dict[str, Any]

NOT_FOUND = 404
_CONFLICT = 409
_MANAGER = "calctl"
#: Where the kinds live that calctl applies, besides our own: apiVersion and kind -> (plural, namespaced).
_PLURALS = {
    ("v1", "Namespace"): ("namespaces", False),
    ("v1", "Secret"): ("secrets", True),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): ("customresourcedefinitions", False),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): ("clusterroles", False),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): ("clusterrolebindings", False),
    ("rbac.authorization.k8s.io/v1", "Role"): ("roles", True),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): ("rolebindings", True),
}


class KubeError(Failure):
    """The API server refused, or could not be asked."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Kube:
    """One API server."""

    def __init__(self, kubeconfig: Path, timeout: float = 15) -> None:
        try:
            self._client = pykube.HTTPClient(pykube.KubeConfig.from_file(str(kubeconfig)), timeout=timeout)
        except (pykube.exceptions.PyKubeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise Failure(f"{kubeconfig} can't be used as a kubeconfig: {error}") from error
        # A proxy is for the world outside; it can't reach an API server on this machine.
        self._client.session.trust_env = not leads_here(self._client.url)

    def get(self, path: str) -> Body:
        return self._request("GET", path)

    def find(self, path: str) -> Body | None:
        """The object, or None when it isn't there."""
        try:
            return self.get(path)
        except KubeError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def items(self, path: str) -> list[Body]:
        """A whole collection."""
        return self._pages(f"{path}?limit=500")

    def metadata(self, path: str, label: str = "") -> list[Body]:
        """A collection's metadata alone; of the objects that carry `label`, if one is given."""
        return self._pages(f"{path}?limit=500&labelSelector={label}", accept=METADATA_ONLY)

    def _pages(self, path: str, accept: str | None = None) -> list[Body]:
        page = self._request("GET", path, accept=accept)
        found: list[Body] = page.get("items") or []
        while token := page.get("metadata", {}).get("continue"):
            page = self._request("GET", f"{path}&continue={token}", accept=accept)
            found += page.get("items") or []
        return found

    def apply(self, body: Body, namespace: str = "default") -> Body:
        """Server-side apply. `namespace` is for objects that name none."""
        path = f"{path_of(body, namespace)}?fieldManager={_MANAGER}&force=true"
        return self._request("PATCH", path, body, "application/apply-patch+yaml")

    def create_if_absent(self, body: Body, namespace: str = "default") -> None:
        """Creates an object; one that is there stays as its owner made it."""
        path = path_of(body, namespace).rpartition("/")[0]
        try:
            self._request("POST", f"{path}?fieldManager={_MANAGER}", body, "application/json")
        except KubeError as error:
            if error.status != _CONFLICT:
                raise

    def merge_patch(self, path: str, body: Body) -> Body:
        return self._request("PATCH", f"{path}?fieldManager={_MANAGER}", body, "application/merge-patch+json")

    def delete(self, path: str, uid: str | None = None) -> None:
        """Deletes an object; with `uid` only if it is the very one. One that is gone already is fine then."""
        body = {"preconditions": {"uid": uid}} if uid else None
        try:
            self._request("DELETE", path, body, "application/json" if uid else None)
        except KubeError as error:
            if not uid or error.status not in (NOT_FOUND, _CONFLICT):
                raise

    def _request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        content_type: str | None = None,
        accept: str | None = None,
    ) -> Body:
        headers = {name: value for name, value in (("Content-Type", content_type), ("Accept", accept)) if value}
        root, _, rest = path.lstrip("/").partition("/")
        try:
            answer = self._client.request(
                method,
                version=f"/{root}",
                url=rest,
                data=None if body is None else json.dumps(body),
                headers=headers or None,
            )
        except (requests.RequestException, pykube.exceptions.KubernetesError) as error:
            raise KubeError(f"the API server can't be asked: {error}") from error
        if answer.status_code >= 400:
            raise KubeError(_message(answer), answer.status_code)
        result: Body = answer.json() if answer.content else {}
        return result


def path_of(body: Body, namespace: str = "default") -> str:
    """The URL path of an object of one of the kinds that calctl knows."""
    version, kind = body.get("apiVersion", ""), body.get("kind", "")
    metadata = body.get("metadata") or {}
    own = next((k for k in KINDS if k.name == kind and version.startswith("calayer.dev/")), None)
    if own is not None:
        return own.path(metadata.get("namespace") or namespace, metadata["name"])
    if (version, kind) not in _PLURALS:
        raise Failure(f"calctl doesn't apply objects of kind {kind!r} ({version!r})")
    plural, namespaced = _PLURALS[version, kind]
    parts = ["/api/v1" if version == "v1" else f"/apis/{version}"]
    if namespaced:
        parts += ["namespaces", metadata.get("namespace") or namespace]
    return "/".join([*parts, plural, metadata["name"]])


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("message") or answer.text)
    except ValueError:
        return f"the API server answered {answer.status_code}: {answer.text[:200]}"
