"""Downloads the official envtest archive (kube-apiserver, etcd, kubectl), its checksum verified.

The index and the archives are published by the controller-tools project. `CAL_ENVTEST_INDEX` names another index (a mirror), or
`off`. Nothing here is fatal: whatever goes wrong is said, and the next source is tried.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from cal_cli.controlplane.tools import FOR_UP, KUBERNETES_VERSION

INDEX = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"
#: A refused connection fails at once; a black hole must not hold anybody up for longer than this.
_TIMEOUT = httpx.Timeout(30, connect=4)
_CHUNK = 1 << 20


class Unusable(Exception):
    """The archive can't be had or can't be trusted; the message says why."""


def directory(cache: Path) -> Path:
    """Where the programs of the archive are kept."""
    return cache / f"envtest-{KUBERNETES_VERSION.rpartition('.')[0]}"


def download(missing: list[str], cache: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Fetches the archive into `cache` if it has anything of `missing`; {} when it has not, or can't be had."""
    wanted = [name for name in missing if name in FOR_UP]
    index = os.environ.get("CAL_ENVTEST_INDEX", INDEX)
    if not wanted or index == "off":
        return {}
    say(f"envtest archive: asking {index}")
    try:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
            name, link, checksum = _pick(_index(client, index))
            say(f"envtest archive: downloading {name}")
            _install(client, link, checksum, directory(cache))
    except (Unusable, httpx.HTTPError, httpx.InvalidURL, OSError, tarfile.TarError) as error:
        say(f"envtest archive: not used: {error or type(error).__name__}")
        return {}
    paths = {name: directory(cache) / name for name in wanted}
    return {name: path for name, path in paths.items() if path.is_file()}


def _index(client: httpx.Client, index: str) -> dict[str, Any]:
    answer = client.get(index)
    if answer.status_code != httpx.codes.OK:
        raise Unusable(f"{index} answered {answer.status_code}")
    try:
        releases = yaml.safe_load(answer.text)["releases"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise Unusable(f"{index} is not an index of releases") from error
    if not isinstance(releases, dict):
        raise Unusable(f"{index} is not an index of releases")
    return releases


def _pick(releases: dict[str, Any]) -> tuple[str, str, str]:
    """(file name, link, sha512) of the newest release of our minor version, for this machine."""
    minor = KUBERNETES_VERSION.rpartition(".")[0]
    ours = [v for v in releases if re.fullmatch(rf"v{re.escape(minor)}\.\d+", str(v))]
    if not ours:
        raise Unusable(f"no release of Kubernetes {minor} in the index")
    version = max(ours, key=lambda v: int(v.rpartition(".")[2]))
    name = f"envtest-{version}-{platform.system().lower()}-{_architecture()}.tar.gz"
    entry = (releases[version] or {}).get(name)
    if not isinstance(entry, dict) or not entry.get("hash") or not entry.get("selfLink"):
        raise Unusable(f"no {name} in the index")
    return name, str(entry["selfLink"]), str(entry["hash"]).lower()


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _install(client: httpx.Client, link: str, checksum: str, target: Path) -> None:
    """Downloads, verifies, and only then unpacks; the programs appear in `target` whole or not at all."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        archive = Path(scratch) / "archive.tar.gz"
        seen = _fetch(client, link, archive)
        if seen != checksum:
            raise Unusable(f"checksum of {link} is {seen[:16]}..., published is {checksum[:16]}...")
        _unpack(archive, Path(scratch), target)


def _fetch(client: httpx.Client, link: str, archive: Path) -> str:
    digest = hashlib.sha512()
    with client.stream("GET", link) as answer, archive.open("wb") as file:
        if answer.status_code != httpx.codes.OK:
            raise Unusable(f"{link} answered {answer.status_code}")
        for chunk in answer.iter_bytes(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _unpack(archive: Path, scratch: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            source = tar.extractfile(member) if member.isfile() and name in FOR_UP else None
            if source is None:
                continue
            path = scratch / name
            with path.open("wb") as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
            path.chmod(0o755)
            path.rename(target / name)
