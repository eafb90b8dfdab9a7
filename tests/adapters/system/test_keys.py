"""Keys that are wrong, that end, and that change hands in mid-run: a condition and a message, no retry storm, and no node is freed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cal_crds.conditions import Reason, Status, Type, condition

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]
Customer = Any
#: Requests a second that one account with a refused key may cost its provider: a handful, then it is left alone for ten seconds again.
_CALM = 3.0
_LEFT_ALONE = 2.0


async def _is_calm(customer: Customer, waiting: Any) -> None:
    """Nobody storms a provider that refuses: counted by the provider itself, until it was left alone and asked anew twice."""
    began, before = time.monotonic(), customer.site.requests()
    seen, asked, looks = before, began, 0

    async def looked_at_twice() -> bool:
        nonlocal seen, asked, looks
        if (count := customer.site.requests()) > seen:
            looks += time.monotonic() - asked > _LEFT_ALONE
            seen, asked = count, time.monotonic()
        return looks == 2

    await waiting(looked_at_twice, timeout=90, what="a provider that is left alone in between")
    assert (seen - before) / (time.monotonic() - began) < _CALM


async def _refused(customer: Customer, waiting: Any) -> str:
    async def told() -> str:
        found = await customer.provider_condition(Type.CREDENTIALS_VALID)
        assert found is not None and found.status == Status.FALSE and found.reason == Reason.CREDENTIALS_REFUSED
        return str(found.message)

    return str(await waiting(told))


async def test_a_wrong_key_is_said_and_buys_nothing(customer: Customer, waiting: Any) -> None:
    key = f"{customer.site.key}.wrong"
    await customer.register(main=key)
    await customer.pool()
    await customer.deploy()
    said = await _refused(customer, waiting)
    assert said.startswith("main: ") and key not in said

    async def waits() -> bool:
        found = await customer.deployment()
        assert found.status.waiting is not None and found.status.state in ("PENDING", "PROVISIONING")
        assert found.status.waiting.reason == Reason.CREDENTIALS_REFUSED, found.status.waiting
        assert key not in found.status.waiting.message
        return "401" in found.status.waiting.message

    await waiting(waits)
    assert customer.site.billing() == []
    await _is_calm(customer, waiting)
    await customer.terminate()
    await customer.reaches("TERMINATED")


async def test_a_key_that_is_revoked_in_mid_run_loses_nothing_and_storms_nobody(
    customer: Customer, waiting: Any
) -> None:
    await customer.register(main=customer.site.key)
    await customer.pool()
    await customer.deploy(replicas=4)
    await customer.reaches("RUNNING", timeout=90)
    billed = customer.site.billing()
    customer.site.revoke(customer.site.key)
    await customer.set_key(customer.site.key)  # the same: only so that it is looked at now
    await _refused(customer, waiting)
    blind = f'cal_sweep_blind{{credential="main",provider="{customer.name}"}} 1.0'
    await waiting(lambda: customer.metric(blind), what="a sweep that says it can't see")
    await _is_calm(customer, waiting)
    assert customer.site.billing() == billed
    assert len(await customer.nodes()) == 4
    await customer.terminate()

    async def says_so() -> bool:
        for node in await customer.nodes():
            failed = condition(node.status.conditions, Type.STOP_FAILED)
            assert failed is not None and failed.status == Status.TRUE
        return True

    await waiting(says_so)
    await _is_calm(customer, waiting)
    assert customer.site.billing() == billed and len(await customer.nodes()) == 4
    customer.site.admit(customer.site.key)
    await customer.no_nodes(timeout=120)
    assert customer.site.billing() == []


async def test_a_key_that_is_swapped_for_another_accounts_frees_no_node_and_the_sweep_says_that_it_cannot_see(
    customer: Customer, waiting: Any
) -> None:
    await customer.register(main=customer.site.key)
    await customer.pool()
    await customer.deploy()
    await customer.reaches("RUNNING", timeout=90)
    (node,) = await customer.nodes()
    billed = customer.site.billing()
    await customer.set_key(customer.site.other_key)
    await customer.terminate()

    async def says_so() -> bool:
        (still,) = await customer.nodes()
        failed = condition(still.status.conditions, Type.STOP_FAILED)
        assert failed is not None and failed.status == Status.TRUE
        assert failed.reason in (Reason.WRONG_ACCOUNT, Reason.CREDENTIALS_REFUSED), failed
        assert customer.site.owners[0] in failed.message
        return True

    await waiting(says_so)
    blind = f'cal_sweep_blind{{credential="main",provider="{customer.name}"}} 1.0'
    await waiting(lambda: customer.metric(blind), what="a sweep that says it can't see")
    assert customer.site.billing() == billed
    assert [still.metadata.uid for still in await customer.nodes()] == [node.metadata.uid]
    await customer.set_key(customer.site.key)
    await customer.no_nodes(timeout=120)
    assert customer.site.billing() == []
    sees = f'cal_sweep_blind{{credential="main",provider="{customer.name}"}} 0.0'
    await waiting(lambda: customer.metric(sees))


async def test_each_credential_buys_from_its_own_account(customer: Customer, waiting: Any) -> None:
    await customer.register(main=customer.site.key, team=customer.site.other_key)
    await customer.pool("first")
    await customer.pool("second", credential="team")
    await customer.deploy("one", "first")
    await customer.deploy("two", "second")
    for name in ("one", "two"):
        await customer.reaches("RUNNING", name, timeout=90)
    assert sorted(owner for owner, _ in customer.site.billing()) == sorted(customer.site.owners)
    known = {status.name: status for status in (await customer.provider()).status.credentials}
    accounts = {
        node.spec.provider_ref.credential or "main": node.status.instance.account
        for node in await customer.nodes()
        if node.status.instance is not None
    }
    assert accounts == dict(zip(("main", "team"), customer.site.owners, strict=True))

    async def told() -> bool:
        known.update({status.name: status for status in (await customer.provider()).status.credentials})
        return all(known[name].account == account for name, account in accounts.items())

    await customer.set_key(customer.site.key)
    await waiting(told)
    for name in ("one", "two"):
        await customer.terminate(name)
    await customer.no_nodes(timeout=120)
    assert customer.site.billing() == []
