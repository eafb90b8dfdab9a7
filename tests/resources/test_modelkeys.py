"""The keys of models: always the same for a deployment, another for each, and nothing that isn't the installation's key is taken for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cal_crds.modelkeys import BadKey, derive, new_secret, read_file, read_secret, redact

KEY = bytes(range(32))
UID = "0f0e8d5a-6a37-4a8d-9d0c-2a9c35d1a001"


def test_it_never_changes_from_one_version_to_the_next() -> None:
    """Running models were given this key: another one would lock their owners out."""
    assert derive(KEY, UID) == "cal-tcLH_MrV6U6Jiu5VvD8xQ_dbIBUBk6rENLs-VfnwR1k"


def test_it_differs_for_each_deployment_and_each_installation() -> None:
    keys = {derive(key, uid) for key in (KEY, KEY[::-1]) for uid in (UID, UID.replace("1", "2"), "")}
    assert len(keys) == 6


@given(st.binary(min_size=32, max_size=64), st.uuids())
def test_it_is_safe_in_headers_environments_and_shells(key: bytes, uid: object) -> None:
    derived = derive(key, str(uid))
    assert len(derived) == 47 and derived.startswith("cal-")
    assert derived.isascii() and derived.replace("-", "").replace("_", "").isalnum()


def test_what_else_is_derived_from_the_same_key_can_not_be_the_same() -> None:
    plain = hmac.digest(KEY, UID.encode(), hashlib.sha256)
    assert base64.urlsafe_b64encode(plain).rstrip(b"=").decode() not in derive(KEY, UID)


def test_each_installation_makes_a_key_of_its_own() -> None:
    first, second = read_secret(new_secret("ns")), read_secret(new_secret("ns"))
    assert first != second and len(first) == len(second) == 32


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({}, "has no key 'key'"),
        ({"data": None}, "has no key 'key'"),
        ({"data": {"other": "eA=="}}, "has no key 'key'"),
        ({"data": {"key": "hunter2!"}}, "is not base64"),
        ({"data": {"key": ""}}, "32 to 4096 bytes"),
        ({"data": {"key": base64.b64encode(b"hunter2" * 4).decode()}}, "32 to 4096 bytes"),
    ],
)
def test_a_secret_that_holds_no_key_is_refused_without_quoting_it(secret: dict[str, Any], words: str) -> None:
    with pytest.raises(BadKey, match=words) as refused:
        read_secret(secret)
    assert "hunter2" not in str(refused.value) and refused.value.__cause__ is None


def test_a_file_is_read_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\n" * 32)
    assert read_file(path) == b"\n" * 32


@pytest.mark.parametrize(("content", "words"), [(b"", "32 to 4096"), (b"x" * 31, "32 to 4096"), (b"x" * 5000, "4096")])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(BadKey, match=words):
        read_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match=f"{tmp_path}/key: No such file"):
        read_file(tmp_path / "key")
    with pytest.raises(BadKey, match="Is a directory"):
        read_file(tmp_path)


def test_a_text_loses_the_keys_in_it_and_nothing_else() -> None:
    key = derive(b"x" * 32, "uid")
    mark = "cal-0123456789-0123456789abcdef0123"
    text = f'args: Args {{ api_key: Some("{key}") }} of {mark}, {key}x'
    assert redact(text) == f'args: Args {{ api_key: Some("[the model\'s API key]") }} of {mark}, {key}x'
    assert redact(f"Bearer {key}\n{key}") == "Bearer [the model's API key]\n[the model's API key]"
