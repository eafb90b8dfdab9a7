"""SDL and manifest against the provider's own code and schema, and against everything that people may write into a workload."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from cal_adapters.akash.manifest import group_names, manifest_hash, manifest_text
from cal_adapters.akash.sdl import build, dump
from cal_adapters.contract import EnvValue, LaunchRequest, Mark, RegistryLogin
from cal_adapters.errors import Refused
from cal_crds.node import Offer, OfferAttribute
from cal_crds.pool import Tenancy
from cal_crds.workload import Port, PortProtocol, Resources, ServedModel, Workload

Oracle = Callable[[list[str]], list[dict[str, Any]]]

_GPU = {"vendor": "nvidia", "model": "h100", "ram": "80Gi", "interface": "sxm"}
_OFFER = Offer(
    id="akash-h100", gpu_count=8, attributes=[OfferAttribute(name=name, value=value) for name, value in _GPU.items()]
)
_BASE = LaunchRequest(
    mark=Mark("0a1b2c3d4e", "abcdefgh12345678"),
    node="n",
    namespace="d",
    deployment_uid="u",
    pool_uid="p",
    offer=_OFFER,
    provider_pool_id=None,
    tenancy=Tenancy.SHARED,
    gpu_count=1,
    max_price_per_hour=None,
    model=ServedModel(name="m"),
    workload=Workload(image="vllm/vllm-openai:v0.11.0", ports=[Port(name="http", port=8000)]),
)

#: What YAML, shells and templates would make something else of.
_TRICKY = (
    "1e3", "0o17", "012", "1_000", "0x1F", "12:30:45", "no", "~", "null", "=", "<<", "*a", "&a", "!!python/object:os.system x", "%TAG",
    "a: b", "a #b", "- x", "{x}", "[x]", "|", ">", "'", '"', "\\", "\\n", "\n", "\r\n", "\t", "", " ", " x ", "---", "...", "$(id)", "`id`",
    "${HOME}", "; rm -rf /", "]}\n  evil:\n    image: x", "\N{GRINNING FACE}", "é", "\u200f", "<>&", "2026-11-23", "+1", ".inf", "@x",
)  # fmt: skip


def _workload(**changes: Any) -> Workload:
    return _BASE.workload.model_copy(update=changes)


_CASES: dict[str, LaunchRequest] = {
    "as simple as can be": _BASE,
    "without a GPU": replace(_BASE, gpu_count=0),
    "many GPUs": replace(_BASE, gpu_count=8),
    "any GPU of the model": replace(
        _BASE, offer=_OFFER.model_copy(update={"attributes": _OFFER.attributes[:2]}), gpu_count=2
    ),
    "several ports, one of them 80": replace(
        _BASE,
        workload=_workload(
            ports=[
                Port(name="a", port=9000),
                Port(name="b", port=80),
                Port(name="c", port=22, protocol=PortProtocol.TCP),
                Port(name="d", port=8080),
            ]
        ),
    ),
    "TCP first": replace(
        _BASE, workload=_workload(ports=[Port(name="a", port=80, protocol=PortProtocol.TCP), Port(name="b", port=443)])
    ),
    "command, args and env": replace(
        _BASE,
        workload=_workload(command=["sh", "-c"], args=list(_TRICKY)),
        env=[EnvValue(f"V{index}", text) for index, text in enumerate(_TRICKY)],
    ),
    "a login": replace(_BASE, logins=[RegistryLogin("https://index.docker.io/v1/", "somebody", "secret&<1>")]),
    "odd amounts": replace(_BASE, workload=_workload(resources=Resources(cpu="333m", memory="1.5Gi", storage="100M"))),
}


@pytest.mark.parametrize("name", _CASES)
def test_manifest_and_hash_are_those_of_the_providers_own_code(name: str, oracle: Oracle) -> None:
    sdl = build(_CASES[name], "uact", "1000.5")
    (answer,) = oracle([dump(sdl)])
    assert answer.get("errors") is None
    assert manifest_text(sdl) == answer["manifest"]
    assert manifest_hash(manifest_text(sdl)) == answer["hash"]


@pytest.mark.parametrize("name", _CASES)
def test_an_sdl_fits_the_providers_schema(name: str, sdl_schema: Path) -> None:
    schema = Draft7Validator(yaml.safe_load(sdl_schema.read_text()))
    assert list(schema.iter_errors(build(_CASES[name], "uakt", "7"))) == []


def test_the_mark_is_the_groups_name(oracle: Oracle) -> None:
    (answer,) = oracle([dump(build(_BASE, "uact", "1"))])
    assert answer["groups"] == [str(_BASE.mark)]
    assert group_names(answer["manifest"]) == [str(_BASE.mark)]


def test_the_manifest_says_nothing_of_prices_so_it_can_be_made_again_later() -> None:
    assert manifest_text(build(_BASE, "uact", "1")) == manifest_text(build(_BASE, "uakt", "999"))


# --- anything that people may write


_words = st.one_of(st.sampled_from(_TRICKY), st.text(max_size=30))
_requests = st.builds(
    lambda command, args, env: replace(
        _BASE,
        workload=_workload(command=command, args=args),
        env=[EnvValue(f"V{index}", text) for index, text in enumerate(env)],
    ),
    st.lists(_words, max_size=4),
    st.lists(_words, max_size=4),
    st.lists(_words, max_size=4),
)


def _built(request: LaunchRequest) -> dict[str, Any] | None:
    try:
        return build(request, "uact", "1000")
    except Refused:
        return None


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(_requests, min_size=20, max_size=40))
def test_whatever_a_workload_holds_the_provider_reads_it_as_it_was_written(
    requests: list[LaunchRequest], oracle: Oracle
) -> None:
    sdls = [sdl for sdl in map(_built, requests) if sdl is not None]
    for sdl, answer in zip(sdls, oracle([dump(sdl) for sdl in sdls]), strict=True):
        assert answer.get("errors") is None
        assert answer["manifest"] == manifest_text(sdl)
        (service,) = json.loads(answer["manifest"])[0]["services"]
        wanted = sdl["services"]["http-8000"]
        assert (service["command"], service["args"], service["env"]) == (
            wanted["command"],
            wanted["args"],
            wanted["env"],
        )


@settings(max_examples=60, deadline=None)
@given(request=_requests)
def test_no_value_gets_out_of_its_place(request: LaunchRequest) -> None:
    sdl = _built(request)
    if sdl is None:
        return
    read = yaml.safe_load(dump(sdl))
    assert read == sdl
    assert list(read["services"]) == ["http-8000"]
    assert read["profiles"]["placement"].keys() == {str(request.mark)}


@pytest.mark.parametrize("bad", ["\x00", "\x1b[2J", "\x7f", "\x85", "\u2028", "\ud800", "\ufeff"])
@pytest.mark.parametrize("place", ["command", "args", "env", "login"])
def test_what_no_manifest_carries_is_refused(bad: str, place: str) -> None:
    text = f"a{bad}b"
    request = {
        "command": replace(_BASE, workload=_workload(command=[text])),
        "args": replace(_BASE, workload=_workload(args=[text])),
        "env": replace(_BASE, env=[EnvValue("A", text)]),
        "login": replace(_BASE, logins=[RegistryLogin("docker.io", "somebody", text * 3)]),
    }[place]
    with pytest.raises(Refused, match=r"U\+"):
        build(request, "uact", "1")


@pytest.mark.parametrize(
    ("image", "server", "fits"),
    [
        ("private/model:1", "https://index.docker.io/v1/", "docker.io"),
        ("ghcr.io/acme/model:1", "ghcr.io", "ghcr.io"),
        ("registry.example:5000/model", "https://registry.example:5000", "registry.example:5000"),
        ("ghcr.io/acme/model:1", "docker.io", None),
        ("evil.example/ghcr.io/model", "ghcr.io", None),
    ],
)
def test_a_login_goes_to_its_own_registry_only(image: str, server: str, fits: str | None) -> None:
    request = replace(_BASE, workload=_workload(image=image), logins=[RegistryLogin(server, "somebody", "secret-1")])
    service = build(request, "uact", "1")["services"]["http-8000"]
    assert service.get("credentials", {}).get("host") == fits


def test_an_offer_of_another_market_is_refused() -> None:
    with pytest.raises(Refused, match="which GPU"):
        build(replace(_BASE, offer=Offer(id="nosana-x", gpu_count=1)), "uact", "1")
