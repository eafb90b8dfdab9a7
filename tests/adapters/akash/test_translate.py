"""Prices, offers and handles, both ways."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cal_adapters.akash import translate
from cal_adapters.akash.translate import Rates
from cal_adapters.akash.wire import Coin, GpuModel, GpuPrices
from cal_adapters.errors import Refused


def _model(**changes: Any) -> GpuModel:
    price = {"currency": "USD", "min": 2, "max": 3, "avg": 2.5, "weightedAverage": 2.5, "med": 2.4}
    base: dict[str, Any] = {"vendor": "nvidia", "model": "h100", "ram": "80Gi", "interface": "SXM5"}
    rest = {"availability": {"total": 16, "available": 5}, "price": price}
    return GpuModel.model_validate({**base, **rest, **changes})


def _priced(low: float) -> dict[str, Any]:
    return {"currency": "USD", "min": low, "max": 3, "avg": 2.5, "weightedAverage": 2.5, "med": 2.4}


def test_a_block_lasts_six_seconds_and_a_million_make_a_coin() -> None:
    assert Rates().per_hour(Coin(denom="uact", amount=Decimal(1000))) == Decimal("0.6")
    assert Rates({"uakt": Decimal("0.5")}).per_hour(Coin(denom="uakt", amount=Decimal(1000))) == Decimal("0.3")
    assert Rates().per_hour(Coin(denom="uakt", amount=Decimal(1))) is None


@settings(deadline=None)
@given(
    st.decimals(min_value="0.0001", max_value=1000, places=6),
    st.sampled_from([("uact", Decimal(1)), ("uakt", Decimal("0.37")), ("uakt", Decimal("3.1"))]),
)
def test_a_cap_survives_the_way_there_and_back_and_never_grows(cap: Decimal, coin: tuple[str, Decimal]) -> None:
    rates = Rates({coin[0]: coin[1]})
    back = rates.per_hour(Coin(denom=coin[0], amount=rates.per_block(cap, coin[0])))
    assert back is not None
    assert cap - Decimal("0.00001") < back <= cap


@pytest.mark.parametrize("rates", [Rates(), Rates({"uakt": Decimal(0)})])
def test_a_coin_of_unknown_or_no_worth_is_refused(rates: Rates) -> None:
    with pytest.raises(Refused, match="uakt"):
        rates.per_block(Decimal(1), "uakt")


def test_offers_are_per_count_as_far_as_there_are_so_many() -> None:
    made = translate.offers([_model()])
    assert [(offer.id, offer.gpu_count, offer.price_per_hour, offer.available) for offer in made] == [
        ("akash-h100-80gi-sxm", 1, "2", 5),
        ("akash-h100-80gi-sxm-x2", 2, "4", 2),
        ("akash-h100-80gi-sxm-x4", 4, "8", 1),
    ]
    assert {offer.gpu_type for offer in made} == {"nvidia-h100-sxm-80gb"}
    assert {offer.gpu_memory_gb for offer in made} == {80}


def test_what_an_sdl_cannot_tell_apart_is_one_offer_at_the_lower_price() -> None:
    (one, *_) = translate.offers([_model(interface="SXM4", price=_priced(1.5)), _model(interface="SXM5")])
    assert (one.price_per_hour, one.available) == ("1.5", 10)


@pytest.mark.parametrize(
    "changes",
    [
        {"price": None},
        {"vendor": "amd", "model": "mi300x"},
        {"price": {**_priced(2), "currency": "EUR"}},
        {"price": _priced(0)},
        {"model": "h100\n  evil: true"},
        {"ram": "lots"},
    ],
    ids=str,
)
def test_what_cannot_be_bought_is_not_offered(changes: dict[str, Any]) -> None:
    assert translate.offers([_model(**changes)]) == []


def test_what_is_sold_out_is_shown_so() -> None:
    (one,) = translate.offers([_model(availability={"total": 16, "available": 0})])
    assert one.available == 0


def test_a_handle_reads_back() -> None:
    owner = "akash1" + "q" * 38
    assert translate.read_handle(translate.handle(owner, "1795410420788")) == (owner, "1795410420788")


@pytest.mark.parametrize(
    "bad", ["", "x", "akash1q/1", "akash1" + "q" * 38 + "/0", "akash1" + "q" * 38 + "/1/../2", "a/b\n"]
)
def test_what_is_no_handle_is_refused(bad: str) -> None:
    with pytest.raises(Refused):
        translate.read_handle(bad)


def test_a_number_that_the_console_did_not_give_tells_no_time() -> None:
    assert translate.created("18446744073709551615").year == 1970
    assert translate.created("1795410420788").year == 2026


def test_a_line_of_the_price_list_that_cannot_be_read_hides_no_other() -> None:
    good = _model().model_dump(mode="json", by_alias=True)
    prices = GpuPrices.model_validate({"models": [{"vendor": 1}, good, "?"]})
    assert len(translate.offers(prices.models)) == 3
