"""Every word of the protocol's own has a meaning here: a package that knows more words than we do fails these tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from worlds import akash_package
from worlds.akash_state import address

from cal_adapters.akash import states
from cal_adapters.akash.translate import Rates
from cal_adapters.akash.wire import Deployment
from cal_adapters.contract import State

_PROTOS = Path("node_modules/@akashnetwork/chain-sdk/dist/types/generated/protos/akash")
#: Spoken by newer networks, and not in the package yet.
_NEWER = {"reclaiming"}
_LEASE = "market/v1/lease.d.ts"


def enum(file: str, name: str) -> dict[str, int]:
    """The words of an enum in the provider's package, without those that stand for none."""
    text = (akash_package.folder() / _PROTOS / file).read_text()
    found = re.search(rf"enum {name} \{{(.*?)\n\}}", text, re.DOTALL)
    assert found, f"{file} has no enum {name} any more"
    words = {word: int(number) for word, number in re.findall(r"^ +(\w+) = (-?\d+),?$", found[1], re.MULTILINE)}
    return {word: number for word, number in words.items() if number > 0}


def shown(deployment: str, lease: str, reason: str | int | None = None) -> Deployment:
    """A deployment with one lease whose workload is up, in these words."""
    lease_id = {"dseq": "1700000000000", "gseq": 1, "oseq": 1, "provider": address("cheap")}
    head = {"id": {"owner": address("owner"), "dseq": "1700000000000"}, "state": deployment, "hash": "x"}
    up = {"services": {"http-8000": {"available": 1, "total": 1, "uris": ["a.example"]}}}
    said: dict[str, Any] = {"id": lease_id, "state": lease, "price": {"denom": "uact", "amount": "1"}, "status": up}
    return Deployment.model_validate({"deployment": head, "leases": [said | {"reason": reason}]})


def state(seen: Deployment) -> State:
    lease = states.current(seen)
    assert lease is not None
    return states.observed(seen, lease, Rates()).state


def test_every_word_for_a_deployment_and_its_lease_has_its_state() -> None:
    deployments = set(enum("deployment/v1/deployment.d.ts", "Deployment_State"))
    leases = set(enum(_LEASE, "Lease_State")) | _NEWER
    assert {"active", "closed"} <= deployments and {"active", "closed"} <= leases
    for deployment in deployments:
        for lease in leases:
            assert state(shown(deployment, lease)) is not State.UNKNOWN, (deployment, lease)
    assert state(shown("active", "levitating")) is State.UNKNOWN
    assert state(shown("levitating", "active")) is State.UNKNOWN


@pytest.mark.parametrize("as_number", [False, True])
def test_every_reason_for_the_end_of_a_lease_says_whose_doing_it_was(as_number: bool) -> None:
    reasons = enum("market/v1/types.d.ts", "LeaseClosedReason")
    assert len(reasons) >= 6
    for word, number in reasons.items():
        providers_doing = 10000 <= number < 20000
        said = shown("active", "closed", str(number) if as_number else word)
        assert state(said) is (State.LOST if providers_doing else State.TERMINATED), word
