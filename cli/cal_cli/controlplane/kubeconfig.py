"""Kubeconfig files: who connects where, with which certificate. Everything is inside the file, so it can be moved."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import yaml

from cal_cli.controlplane.pki import Pair


def write(path: Path, *, server: str, authority: Path, user: str, client: Pair, namespace: str = "default") -> Path:
    """Writes the kubeconfig of `user` for `server`, readable by its owner alone; it appears whole or not at all."""
    name = "calctl"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _inline(authority)}}],
        "users": [
            {
                "name": user,
                "user": {"client-certificate-data": _inline(client.cert), "client-key-data": _inline(client.key)},
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": namespace}}],
        "current-context": name,
        "preferences": {},
    }
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part.touch(mode=0o600)
    part.write_text(yaml.safe_dump(content, sort_keys=False))
    part.rename(path)
    return path


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
