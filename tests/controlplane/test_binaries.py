"""The search for the programs: the order of the places, and a clear word at each step."""

from __future__ import annotations

from pathlib import Path

import pytest

from cal_cli.controlplane import BinariesNotFound, find
from cal_cli.controlplane.binaries import cache_root
from cal_cli.controlplane.tools import key

PAIR = ("kube-apiserver", "etcd")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No place has anything, nothing can be downloaded, and there is no Go."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CAL_ENVTEST_INDEX", "off")


def put(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory


def test_the_places_are_asked_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / "path", cache_root() / key(), cache_root() / "envtest-1.37"]
    for place in places:
        put(place, *PAIR)
    assets = put(tmp_path / "assets", *PAIR)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    for place in [assets, *places]:
        assert {path.parent for path in find(PAIR, lambda line: None).values()} == {place}
        for name in PAIR:
            (place / name).unlink()


def test_each_step_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(put(tmp_path / "assets")))
    put(tmp_path / "path", "kubectl")
    put(cache_root() / key(), *PAIR)
    lines: list[str] = []
    find([*PAIR, "kubectl"], lines.append)
    assert lines == [
        f"KUBEBUILDER_ASSETS={tmp_path / 'assets'}: has none of what is missing",
        "PATH: has kubectl",
        f"cache {cache_root() / key()}: has kube-apiserver, etcd",
    ]


def test_an_etcd_alone_is_no_partner_for_our_kube_apiserver(tmp_path: Path) -> None:
    put(tmp_path / "path", "etcd")
    put(cache_root() / key(), *PAIR)
    assert find(PAIR, lambda line: None)["etcd"].parent == cache_root() / key()


def test_a_file_that_cannot_be_run_is_not_found(tmp_path: Path) -> None:
    put(tmp_path / "path", *PAIR)
    (tmp_path / "path" / "etcd").chmod(0o644)
    put(cache_root() / key(), *PAIR)
    assert find(PAIR, lambda line: None)["etcd"].parent == cache_root() / key()


def test_without_go_it_says_what_is_needed() -> None:
    with pytest.raises(BinariesNotFound, match=r"etcd not found, and not built: Go 1\.26 or newer is needed.*no `go`"):
        find(["etcd"], lambda line: None)


def test_an_old_go_is_named(tmp_path: Path) -> None:
    go = put(tmp_path / "path", "go") / "go"
    go.write_text("#!/bin/sh\necho go1.20.3\n")
    with pytest.raises(BinariesNotFound, match=r"Go 1\.26 or newer is needed; .*/go is go1\.20\.3"):
        find(["etcd"], lambda line: None)


def test_a_go_that_fails_is_quoted(tmp_path: Path) -> None:
    go = put(tmp_path / "path", "go") / "go"
    go.write_text("#!/bin/sh\necho 'toolchain not available' >&2\nexit 1\n")
    with pytest.raises(BinariesNotFound, match="toolchain not available"):
        find(["etcd"], lambda line: None)
