"""From a purchase to an SDL 2.0 document: built as data, never as text. Pure.

The placement's name is the mark. It becomes the name of the deployment's group on the chain, so a deployment bears our mark for ever,
and it is part of the manifest, so the hash covers it too. Schema: dist/sdl-schema.yaml of npm @akashnetwork/chain-sdk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from cal_adapters.contract import LaunchRequest, RegistryLogin
from cal_adapters.errors import Refused
from cal_crds.node import Offer
from cal_crds.workload import FINITE, Port, PortProtocol

#: What a workload gets per GPU where it doesn't say; offers state the same.
VCPU_PER_GPU: Final = 8
RAM_GB_PER_GPU: Final = 32
_STORAGE: Final = "50Gi"
#: Spoken over the provider's ingress, at external port 80.
_INGRESS: Final = frozenset({PortProtocol.HTTP, PortProtocol.WEBSOCKET})
_UNITS: Final = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("k", "M", "G", "T"), 1)},
    **{unit: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), 1)},
}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
#: What no manifest carries unharmed: other control characters, separators that JavaScript and Go write differently, halves of pairs.
_UNFIT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_GPU_WORD: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{0,62}")
_GPU_RAM: Final = re.compile(r"[1-9][0-9]{0,3}Gi")
INTERFACES: Final = frozenset({"pcie", "sxm"})
VENDORS: Final = frozenset({"nvidia"})


_SERVICE: Final = re.compile(r"(http|ws|tcp)-([1-9][0-9]{0,4})")
_SCHEMES: Final = {PortProtocol.HTTP: "http", PortProtocol.WEBSOCKET: "ws", PortProtocol.TCP: "tcp"}


@dataclass(frozen=True)
class GPU:
    """A GPU as Akash names it. `ram` like `80Gi`, `interface` pcie or sxm; None where any will do."""

    vendor: str
    model: str
    ram: str | None = None
    interface: str | None = None

    def __post_init__(self) -> None:
        if self.vendor not in VENDORS or not _GPU_WORD.fullmatch(self.model):
            raise ValueError(f"not a GPU that an SDL can ask for: {self.vendor!r} {self.model!r}")
        if (self.ram is not None and not _GPU_RAM.fullmatch(self.ram)) or self.interface not in {*INTERFACES, None}:
            raise ValueError(f"not a GPU that an SDL can ask for: ram {self.ram!r}, interface {self.interface!r}")


def gpu_of(offer: Offer) -> GPU:
    """The GPU that an offer of ours stands for. Refused if it isn't one of ours."""
    known = {attribute.name: attribute.value for attribute in offer.attributes}
    try:
        return GPU(known["vendor"], known["model"], known.get("ram"), known.get("interface"))
    except (KeyError, ValueError) as error:
        raise Refused(f"The offer {offer.id!r} doesn't say which GPU to ask Akash for ({error})") from error


def build(request: LaunchRequest, denom: str, amount: str) -> dict[str, Any]:
    """The SDL of a purchase; at most `amount` of `denom` is paid per block. Refused for what Akash can't do."""
    _check(request)
    mark, workload = str(request.mark), request.workload
    name = service_name(workload.ports[0])
    service: dict[str, Any] = {
        "image": _text(workload.image or "", "image"),
        "command": [_text(part, "command") for part in workload.command] or None,
        "args": [_text(part, "args") for part in workload.args] or None,
        "env": [f"{_name(item.name)}={_text(item.value, f'variable {item.name}')}" for item in request.env] or None,
        "expose": _expose(workload.ports),
    }
    if login := _login(workload.image or "", request.logins):
        service["credentials"] = {"host": login[0], "username": login[1].username, "password": login[1].password}
    return {
        "version": "2.0",
        "services": {name: service},
        "profiles": {
            "compute": {name: {"resources": _resources(request)}},
            "placement": {mark: {"pricing": {name: {"denom": denom, "amount": amount}}}},
        },
        "deployment": {name: {mark: {"profile": name, "count": 1}}},
    }


def service_name(first: Port) -> str:
    """The name of the one service: it says which port is the endpoint, so that a lease's status tells the whole address."""
    return f"{_SCHEMES[first.protocol]}-{first.port}"


def read_service(name: str) -> tuple[str, int] | None:
    """Scheme and port of the endpoint, out of a service's name; None if the service isn't one of ours."""
    found = _SERVICE.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def dump(sdl: dict[str, Any]) -> str:
    """The SDL as YAML. JSON is YAML whose every string is quoted: no YAML library can read `1e3` or `no` as anything but text."""
    return json.dumps(sdl, ensure_ascii=False)


def _check(request: LaunchRequest) -> None:
    workload = request.workload
    if workload.image is None:
        raise Refused("Akash runs containers: the workload needs an image")
    if workload.type in FINITE:
        raise Refused(
            f"Akash starts a container again whenever it exits: a {workload.type} workload would never end, and bill on"
        )
    if not workload.ports:
        raise Refused("Akash takes only workloads with a port that is open to the world")
    if workload.working_dir is not None:
        raise Refused("An SDL has no working directory: leave workingDir out, or set it in the image")


def _text(value: str, what: str) -> str:
    if bad := _UNFIT.search(value):
        raise Refused(f"The workload's {what} holds the character U+{ord(bad[0]):04X}, which a manifest can't carry")
    return value


def _name(name: str) -> str:
    if not name or "=" in name:
        raise Refused(f"{name!r} is no name of an environment variable")
    return _text(name, "variable's name")


def _expose(ports: Sequence[Port]) -> list[dict[str, Any]]:
    """The first port goes through the provider's ingress (external port 80) if it speaks HTTP; the others get a port of their own."""
    taken = {port.port for port in ports}
    exposed = []
    for index, port in enumerate(ports):
        item: dict[str, Any] = {"port": port.port}
        if index == 0 and port.protocol in _INGRESS:
            item["as"] = 80
        elif port.port == 80:
            # Left alone it would take the ingress away from the first port.
            item["as"] = next(free for free in range(8080, 8200) if free not in taken)
        exposed.append(item | {"to": [{"global": True}]})
    return exposed


def _resources(request: LaunchRequest) -> dict[str, Any]:
    wanted, gpus = request.workload.resources, max(request.gpu_count, 1)
    cpu = (wanted and wanted.cpu) or str(VCPU_PER_GPU * gpus)
    memory = (wanted and wanted.memory) or f"{RAM_GB_PER_GPU * gpus}G"
    resources: dict[str, Any] = {
        "cpu": {"units": f"{max(_ceiling(_amount(cpu) * 1000), 10)}m"},
        "memory": {"size": _kib(memory)},
        "storage": {"size": _kib((wanted and wanted.storage) or _STORAGE)},
    }
    if request.gpu_count:
        gpu = gpu_of(request.offer)
        model = {"model": gpu.model, "ram": gpu.ram, "interface": gpu.interface}
        chosen = {key: value for key, value in model.items() if value is not None}
        resources["gpu"] = {"units": request.gpu_count, "attributes": {"vendor": {gpu.vendor: [chosen]}}}
    return resources


def _kib(quantity: str) -> str:
    # Whole Ki leave nothing to interpret: an SDL reads "100m" as mega and "1.5Gi" as a float.
    return f"{max(_ceiling(_amount(quantity) / 1024), 1)}Ki"


def _amount(quantity: str) -> Decimal:
    found = _QUANTITY.fullmatch(quantity)
    if found is None:
        raise Refused(f"{quantity!r} is no quantity")
    number, unit = Decimal(found[1]), found[2] or ""
    return number / 1000 if unit == "m" else number * _UNITS[unit]


def _ceiling(number: Decimal) -> int:
    return int(number.to_integral_value(rounding=ROUND_CEILING))


def _login(image: str, logins: Sequence[RegistryLogin]) -> tuple[str, RegistryLogin] | None:
    """The registry's host and the login for it. Refused if it can't stand in an SDL."""
    first, slash, _ = image.partition("/")
    host = first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"
    for login in logins:
        if _registry(login.server) == host:
            if not login.username or len(login.password) < 6:
                raise Refused(
                    f"The login for {host} has no user, or a password of less than the 6 characters that Akash asks for"
                )
            return host, RegistryLogin(login.server, _text(login.username, "login"), _text(login.password, "login"))
    return None


def _registry(server: str) -> str:
    host = re.sub(r"^https?://", "", server).partition("/")[0]
    return "docker.io" if host in {"index.docker.io", "registry-1.docker.io", "docker.io"} else host
