"""The route of a model's API key: derived at each request from the installation's key, and kept nowhere."""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import Response

from cal_api import replies
from cal_api.backend import Backend, backend
from cal_api.errors import NotFound, NotReady
from cal_api.operation import DEPLOYMENT_PREFIXES, Operation, rendered
from cal_crds import modelkeys
from cal_crds.engines import NoKey, key_variable
from cal_crds.modelkeys import BadKey

_LOG = logging.getLogger(__name__)
#: No cache on the way keeps a copy.
_NOT_KEPT = {"Cache-Control": "no-store"}


async def get_key(request: Request) -> Response:
    port = backend(request)
    entry = await port.deployment(request.path_params["deployment_id"])
    spec = entry.object.spec
    try:
        if spec.external:
            raise NoKey("it is an external endpoint, whose key is with whoever runs it")
        key_variable(spec.workload)
    except NoKey as why:
        raise NotFound(f"Deployment {entry.uid} has no API key of ours: {why}") from why
    api_key = modelkeys.derive(await _installation_key(port), entry.uid)
    return rendered(
        replies.ModelKey(deployment_id=entry.uid, api_key=api_key, header=f"Authorization: Bearer {api_key}"), _NOT_KEPT
    )


async def _installation_key(port: Backend) -> bytes:
    """Read anew each time: a mounted Secret may come late. What is wrong with it is for the log's reader, not for clients."""
    path = port.settings.model_key_file
    if path is None:
        raise NotReady("This API was started without the models' key; see --model-key-file")
    try:
        return await asyncio.to_thread(modelkeys.read_file, path)
    except BadKey as bad:
        _LOG.warning("the models' key: %s", bad)
        raise NotReady("The models' key can't be read by this API just now; its --model-key-file holds none") from bad


OPERATIONS = (
    Operation(
        "GET",
        "/key/{deployment_id}",
        get_key,
        "The API key of a deployment's model",
        replies.ModelKey,
        {404: "No such deployment; or its engine takes no key, or its owner brought one."},
        prefixes=DEPLOYMENT_PREFIXES,
    ),
)
