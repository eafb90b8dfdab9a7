"""The API keys of models: one per deployment, derived from the installation's key, so that none is ever written down.

Operator and api derive the same key, each for itself: the one hands it to the engine when it buys a node, the other to the owner who asks.
The installation's key is a Secret in the operator's namespace; the operator reads it there, the api from a file. It never leaves the two.
Pure but for `read_file`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Any, Final

SECRET_NAME: Final = "cal-model-key"
SECRET_KEY: Final = "key"
_FRESH: Final = 32
#: Bytes: below, it could be guessed; above, somebody named the wrong file.
_LEAST, _MOST = 32, 4096
#: What else may ever be derived from the same key begins otherwise.
_DOMAIN: Final = b"calayer.dev/model-key/v1\0"
#: What `derive` makes. The mark of an instance begins alike, and is shorter.
_DERIVED: Final = re.compile(r"(?<![A-Za-z0-9_-])cal-[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")


class BadKey(ValueError):
    """What should hold the installation's key doesn't. The message says what is wrong and quotes nothing."""


def derive(installation_key: bytes, deployment_uid: str) -> str:
    """The key of a deployment's model: `cal-` and 43 letters, digits, `-` and `_`; the same whoever asks, and whenever."""
    digest = hmac.digest(installation_key, _DOMAIN + deployment_uid.encode(), hashlib.sha256)
    return f"cal-{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def redact(text: str) -> str:
    """The text without such keys: engines print their settings when they start, and logs are read by more people than may call the model."""
    return _DERIVED.sub("[the model's API key]", text) if "cal-" in text else text


def secret_path(namespace: str) -> str:
    """Where the Secret is; `namespace` is the operator's own."""
    return f"/api/v1/namespaces/{namespace}/secrets/{SECRET_NAME}"


def new_secret(namespace: str) -> dict[str, Any]:
    """The Secret with a fresh key, to be created: one that exists already counts. Another key would lock everybody out."""
    key = base64.b64encode(secrets.token_bytes(_FRESH)).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {"name": SECRET_NAME, "namespace": namespace},
        "data": {SECRET_KEY: key},
    }


def read_secret(secret: dict[str, Any]) -> bytes:
    """The installation's key out of its Secret. BadKey if it isn't there."""
    where = f"Secret {SECRET_NAME}"
    encoded = (secret.get("data") or {}).get(SECRET_KEY)
    if encoded is None:
        raise BadKey(f"{where} has no key {SECRET_KEY!r}")
    try:
        return _checked(base64.b64decode(encoded, validate=True), where)
    except binascii.Error:
        # The cause would quote the bytes.
        raise BadKey(f"{where}: {SECRET_KEY!r} is not base64") from None


def read_file(path: Path) -> bytes:
    """The installation's key out of a file, byte for byte: a mounted Secret, or what `calctl up` writes. BadKey if it can't be had."""
    try:
        with path.open("rb") as file:
            return _checked(file.read(_MOST + 1), str(path))
    except OSError as error:
        raise BadKey(f"{path}: {error.strerror}") from error


def _checked(key: bytes, where: str) -> bytes:
    if not _LEAST <= len(key) <= _MOST:
        raise BadKey(f"{where} must hold {_LEAST} to {_MOST} bytes")
    return key
