"""`Idempotency-Key` of POST /deploy: a client that lost the answer asks again under the same key, and gets the deployment that it made.

As in the IETF's draft of that header: the same key with another request is 422, and a key is known for as long as its deployment is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from cal_api.backend import Backend
from cal_api.errors import Unprocessable, bad
from cal_api.table import Entry
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import ANNOTATION_REQUEST, DEPLOYMENT, LABEL_REQUEST
from cal_crds.names import digest

HEADER = "Idempotency-Key"
#: Of an answer that tells of an earlier request's deployment.
REPLAYED: Mapping[str, str] = {"Idempotency-Replayed": "true"}
ABOUT = "Asked again under the same key, the answer is about the deployment that the first request made. At most 255 characters."

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def key_of(request: Request, scope: str) -> str | None:
    """What stands for the request's key among those of `scope` (who pays); None if it has none."""
    sent = request.headers.get(HEADER)
    if sent is None:
        return None
    key = sent.strip().removeprefix('"').removesuffix('"')
    if not _KEY.fullmatch(key):
        raise bad(HEADER, sent, "it is 1 to 255 visible ASCII characters")
    return digest(scope, key, length=32)


def marks(key: str, spec: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Labels and annotations by which a deployment is found again. Values of secrets stand in no spec, so they don't count."""
    return {"labels": {LABEL_REQUEST: key}, "annotations": {ANNOTATION_REQUEST: _content(spec)}}


async def made_before(port: Backend, key: str, spec: Mapping[str, Any]) -> Entry[ModelDeployment] | None:
    """The deployment that an earlier request of that key made, by a quorum read. Unprocessable if something else was asked for then."""
    listing = await port.cluster.list(DEPLOYMENT.path(), labelSelector=f"{LABEL_REQUEST}={key}")
    for body in listing["items"]:
        if body["metadata"].get("annotations", {}).get(ANNOTATION_REQUEST) != _content(spec):
            raise Unprocessable(
                f"{HEADER}: another request was made under this key, for deployment {body['metadata']['uid']}"
            )
        return port.store.put(
            port.store.deployments, {**body, "apiVersion": listing["apiVersion"], "kind": DEPLOYMENT.name}
        )
    return None


def _content(spec: Mapping[str, Any]) -> str:
    return digest(json.dumps(spec, sort_keys=True), length=32)
