"""The official archive, from a local server that stands in for it: checksums count, and failure falls through."""

from __future__ import annotations

import hashlib
import io
import platform
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from cal_cli.controlplane import envtest

NAMES = ("kube-apiserver", "etcd", "kubectl")
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Mirror:
    """A server of files, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                body = mirror.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def publish(self, archive: bytes, checksum: str | None = None, version: str = "v1.37.4") -> None:
        name = f"envtest-{version}-linux-{ARCHITECTURE}.tar.gz"
        entry = {"hash": checksum or hashlib.sha512(archive).hexdigest(), "selfLink": f"{self.url}/{name}"}
        index = yaml.safe_load(self.files.get("/index.yaml", b"releases: {}"))
        index["releases"][version] = {name: entry}
        self.files["/index.yaml"] = yaml.safe_dump(index).encode()
        self.files[f"/{name}"] = archive


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    made = Mirror()
    monkeypatch.setenv("CAL_ENVTEST_INDEX", f"{made.url}/index.yaml")
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def archive(*names: str) -> bytes:
    """As the official one is laid out."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in names:
            body = f"#!/bin/sh\necho {name}\n".encode()
            info = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            info.size, info.mode = len(body), 0o755
            tar.addfile(info, io.BytesIO(body))
    return content.getvalue()


def test_what_is_missing_is_installed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish(archive(*NAMES))
    found = envtest.download(["etcd", "kubectl"], tmp_path, lambda line: None)
    assert set(found) == {"etcd", "kubectl"}
    assert found["etcd"].read_text() == "#!/bin/sh\necho etcd\n"
    assert found["etcd"].stat().st_mode & 0o111


def test_the_newest_release_of_our_minor_version_is_taken(mirror: Mirror, tmp_path: Path) -> None:
    for version in ("v1.37.9", "v1.37.10", "v1.36.0", "v1.38.0", "v1.37.11-rc.1"):
        mirror.publish(archive(*NAMES), version=version)
    envtest.download(["etcd"], tmp_path, lambda line: None)
    assert mirror.asked[-1] == f"/envtest-v1.37.10-linux-{ARCHITECTURE}.tar.gz"


def test_a_wrong_checksum_installs_nothing(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish(archive(*NAMES), checksum="0" * 128)
    lines: list[str] = []
    assert envtest.download(["etcd"], tmp_path, lines.append) == {}
    assert "checksum" in lines[-1]
    assert list(envtest.directory(tmp_path).iterdir()) == []


def test_a_path_that_leaves_the_directory_does_not(mirror: Mirror, tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        info = tarfile.TarInfo("../../../etcd")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("kubectl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    mirror.publish(content.getvalue())
    found = envtest.download(["etcd", "kubectl"], tmp_path / "cache", lambda line: None)
    assert found == {"etcd": envtest.directory(tmp_path / "cache") / "etcd"}
    assert not (tmp_path / "etcd").exists()


@pytest.mark.parametrize(
    ("index", "words"),
    [
        pytest.param(None, "answered 404", id="no index"),
        pytest.param(b"[1, 2]", "not an index", id="not a mapping"),
        pytest.param(b"releases: [", "not an index", id="not YAML"),
        pytest.param(b"releases: {v1.30.0: {}}", "no release of Kubernetes 1.37", id="other versions only"),
        pytest.param(b"releases: {v1.37.0: {}}", "no envtest-v1.37.0", id="not for this machine"),
    ],
)
def test_a_bad_index_falls_through_with_the_reason(
    mirror: Mirror, tmp_path: Path, index: bytes | None, words: str
) -> None:
    if index is not None:
        mirror.files["/index.yaml"] = index
    lines: list[str] = []
    assert envtest.download(["etcd"], tmp_path, lines.append) == {}
    assert words in lines[-1]


def test_an_archive_that_is_none_falls_through(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish(b"not an archive")
    lines: list[str] = []
    assert envtest.download(["etcd"], tmp_path, lines.append) == {}
    assert "not used" in lines[-1]


def test_a_refused_connection_falls_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("CAL_ENVTEST_INDEX", f"http://127.0.0.1:{free_port}/index.yaml")
    lines: list[str] = []
    assert envtest.download(["etcd"], tmp_path, lines.append) == {}
    assert "refused" in lines[-1]


@pytest.mark.parametrize("setting", ["off", "no url", "ftp://127.0.0.1/x"])
def test_a_setting_that_is_no_address_falls_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("CAL_ENVTEST_INDEX", setting)
    assert envtest.download(["etcd"], tmp_path, lambda line: None) == {}


def test_nobody_is_asked_for_what_the_archive_never_has(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish(archive(*NAMES))
    assert envtest.download(["kwok", "helm"], tmp_path, lambda line: None) == {}
    assert mirror.asked == []
