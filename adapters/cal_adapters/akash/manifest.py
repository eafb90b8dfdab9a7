"""From an SDL to the manifest that the Console makes of it, and to the hash under which the chain knows it. Pure.

A deployment on the chain bears only the SHA-256 of its manifest; the manifest itself is handed to the provider once a bid has been
taken. So it must be possible to make it again, byte for byte, from the node's frozen request. The rule is that of
`generateManifest` and `manifestToSortedJSON` in npm @akashnetwork/chain-sdk 1.0.0-alpha.25; a test compares the two.
Covered is what `sdl.py` writes: one placement, one service, sizes in whole Ki and CPU in whole millicores.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

Data = Mapping[str, Any]

#: What the Console fills in where the SDL says nothing of http_options.
_HTTP_OPTIONS: Final = {
    "maxBodySize": 1048576,
    "readTimeout": 60000,
    "sendTimeout": 60000,
    "nextTries": 3,
    "nextTimeout": 0,
    "nextCases": ["error", "timeout"],
}
#: Endpoint kinds of the protocol; SHARED_HTTP is 0 and, being the default, left out.
_RANDOM_PORT: Final = 1
_HTML: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
#: The protocol's JSON names differ from those of its objects in these two.
_SIZE, _SEQUENCE = "size", "sequence_number"


def manifest_text(sdl: Data) -> str:
    """The manifest as the Console sends it to a provider: JSON with sorted keys, no blanks, `<>&` escaped."""
    groups = [_group(name, sdl) for name in sorted(sdl["profiles"]["placement"])]
    return json.dumps(groups, sort_keys=True, separators=(",", ":"), ensure_ascii=False).translate(_HTML)


def manifest_hash(text: str) -> str:
    """The `hash` of a deployment with this manifest, as the Console lists it: base64 of the SHA-256."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def group_names(text: str) -> list[str]:
    """The names of a manifest's groups. ValueError if it isn't a manifest."""
    groups = json.loads(text)
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ValueError("not a list of groups")
    return [str(group.get("name")) for group in groups]


def _group(placement: str, sdl: Data) -> dict[str, Any]:
    names = sorted(name for name, where in sdl["deployment"].items() if placement in where)
    return {"name": placement, "services": [_service(name, placement, sdl) for name in names]}


def _service(name: str, placement: str, sdl: Data) -> dict[str, Any]:
    service, where = sdl["services"][name], sdl["deployment"][name][placement]
    resources = sdl["profiles"]["compute"][where["profile"]]["resources"]
    return {
        "name": name,
        "image": service["image"],
        "command": service.get("command") or None,
        "args": service.get("args") or None,
        "env": service.get("env") or None,
        "resources": _resources(resources, service),
        "count": where["count"],
        "expose": _exposed(service),
        "credentials": _credentials(service.get("credentials")),
    }


def _credentials(given: Data | None) -> dict[str, str] | None:
    return {"email": "", **given} if given else None


def _resources(resources: Data, service: Data) -> dict[str, Any]:
    gpu = resources.get("gpu") or {"units": 0}
    return {
        "id": 1,
        "cpu": {"units": {"val": resources["cpu"]["units"].removesuffix("m")}},
        "memory": {_SIZE: {"val": _bytes(resources["memory"]["size"])}},
        "storage": [{"name": "default", _SIZE: {"val": _bytes(resources["storage"]["size"])}}],
        "gpu": {"units": {"val": str(gpu["units"])}, **_gpu_attributes(gpu)},
        "endpoints": [_endpoint(expose) for expose in service["expose"]],
    }


def _gpu_attributes(gpu: Data) -> dict[str, Any]:
    wanted = [
        {"key": gpu_key(vendor, **model), "value": "true"}
        for vendor, models in sorted(gpu.get("attributes", {}).get("vendor", {}).items())
        for model in models
    ]
    return {"attributes": wanted} if wanted else {}


def gpu_key(vendor: str, model: str, ram: str | None = None, interface: str | None = None) -> str:
    """A GPU as orders and bids name it: `vendor/nvidia/model/h100/ram/80Gi/interface/sxm`."""
    return (
        f"vendor/{vendor}/model/{model}"
        + (f"/ram/{ram}" if ram else "")
        + (f"/interface/{interface}" if interface else "")
    )


def _endpoint(expose: Data) -> dict[str, Any]:
    kind = {} if (expose.get("as") or expose["port"]) == 80 else {"kind": _RANDOM_PORT}
    return {_SEQUENCE: 0, **kind}


def _exposed(service: Data) -> list[dict[str, Any]]:
    exposed = [
        {
            "port": expose["port"],
            "externalPort": expose.get("as", 0),
            "proto": "TCP",
            "service": "",
            "global": True,
            "hosts": None,
            "httpOptions": _HTTP_OPTIONS,
            "ip": "",
            "endpointSequenceNumber": 0,
        }
        for expose in service["expose"]
    ]
    return sorted(exposed, key=lambda item: item["port"])


def _bytes(size: str) -> str:
    return str(int(size.removesuffix("Ki")) * 1024)
