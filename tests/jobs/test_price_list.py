"""Which prices a batch goes by, and that the package's table and the library agree where both know a model."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from airflow_provider_geminibatch.core.prices import BATCH_SHARE, PRICES, Price, PriceList, rates, table_prices
from airflow_provider_geminibatch.jobs.price_list import PriceBook, library_prices, open_book, standing_prices
from airflow_provider_geminibatch.storage.stores import MemoryStore

NOW = datetime(2026, 11, 22, tzinfo=UTC)
OWN = PriceList((Price(Decimal(9), Decimal(9)),), "mine", "")

UNKNOWN_TO_THE_LIBRARY = {"gemini-3.1-pro"}
"""Names that only our table has: the library knows the model as gemini-3.1-pro-preview, which is compared below."""

DIFFERENCES: dict[tuple[str, str, int, str], str] = {}
"""Reviewed differences, (model, day, prompt tokens, share) → which of the two is believed and why. None in genai-prices 0.2.3."""


@pytest.mark.parametrize("model", sorted({*PRICES, "gemini-3.1-pro-preview"}))
def test_the_table_and_the_library_agree_or_the_difference_is_reviewed(model: str) -> None:
    table, library = table_prices(model), library_prices(model)
    assert table is not None
    assert (library is None) == (model in UNKNOWN_TO_THE_LIBRARY)
    for day in ("2026-11-22", "2027-02-01") if library else ():
        at = datetime.fromisoformat(day).replace(tzinfo=UTC)
        ours, theirs = table.at(at), library.at(at) if library else None
        assert ours is not None
        assert theirs is not None
        for prompt in (1000, 300_000):
            for share in (BATCH_SHARE, Decimal(1)):
                if (model, day, prompt, str(share)) not in DIFFERENCES:
                    assert rates(theirs, prompt, share) == rates(ours, prompt, share)


def test_what_the_table_lacks_the_library_prices_and_says_that_the_batch_share_is_assumed() -> None:
    assert table_prices("gemini-2.5-flash-image") is None
    found = PriceBook().find("gemini-2.5-flash-image")
    assert found is not None
    assert "batch assumed to cost 50 %" in found.told(NOW)
    price = found.at(NOW)
    assert price is not None
    assert rates(price, 10).input == price.input / 2


def library(**model: Any) -> data_snapshot.DataSnapshot:
    info = ModelInfo(id="m", match=ClauseEquals("m"), **model)
    return data_snapshot.DataSnapshot([Provider("google", "Google", "x", models=[info])], from_auto_update=False)


def found(monkeypatch: pytest.MonkeyPatch, **model: Any) -> PriceList | None:
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", library(**model))
    return library_prices("models/m")


def mtok(per_input: str, per_output: str, **more: Any) -> ModelPrice:
    return ModelPrice(input_mtok=Decimal(per_input), output_mtok=Decimal(per_output), **more)


def test_a_model_without_a_batch_price_is_never_taken_at_the_standard_price(monkeypatch: pytest.MonkeyPatch) -> None:
    prices = found(monkeypatch, prices=mtok("2", "8"))
    assert prices is not None
    price = prices.at(NOW)
    assert price is not None
    assert rates(price, 10)[:2] == (1, 4)
    assert price.assumed_batch


def test_prices_change_on_their_day_and_batch_prices_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    later = StartDateConstraint(date(2027, 1, 1))
    prices = found(
        monkeypatch,
        prices=[ConditionalPrice(prices=mtok("2", "8")), ConditionalPrice(later, prices=mtok("4", "16"))],
        price_variants=[
            PriceVariant({"processing": "batch"}, mtok("3", "12"), later),
            PriceVariant({"processing": "batch"}, mtok("0.5", "2"), StartDateConstraint(date(2026, 10, 14))),
            PriceVariant({"service_tier": "flex"}, mtok("7", "7")),
        ],
    )
    assert prices is not None
    days = [datetime(2026, 10, 13, tzinfo=UTC), NOW, datetime(2027, 1, 1, tzinfo=UTC)]
    at = [prices.at(day) for day in days]
    assert [rates(price, 10)[:2] for price in at if price] == [(1, 4), (Decimal("0.5"), 2), (3, 12)]
    assert [price.assumed_batch for price in at if price] == [True, False, False]
    assert [rates(price, 10, Decimal(1)).input for price in at if price] == [2, 2, 4]


def test_steps_for_long_prompts_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = TieredPrices(Decimal(1), [Tier(100, Decimal(2)), Tier(500, Decimal(3))])
    prices = found(monkeypatch, prices=ModelPrice(input_mtok=steps, output_mtok=TieredPrices(Decimal(5), [])))
    assert prices is not None
    price = prices.at(NOW)
    assert price is not None
    assert [rates(price, tokens, Decimal(1))[:2] for tokens in (100, 101)] == [(1, 5), (3, 5)]


@pytest.mark.parametrize(
    "model",
    [
        {"prices": ModelPrice(output_mtok=Decimal(1))},
        {
            "prices": [
                ConditionalPrice(prices=mtok("2", "8")),
                ConditionalPrice(TimeOfDateConstraint(NOW.timetz(), NOW.timetz()), prices=mtok("1", "4")),
            ]
        },
    ],
    ids=["no input price", "by the hour"],
)
def test_what_the_library_does_not_say_is_unknown(monkeypatch: pytest.MonkeyPatch, model: dict[str, Any]) -> None:
    assert found(monkeypatch, **model) is None


def test_without_the_library_a_model_that_is_not_in_the_table_has_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "genai_prices.data_snapshot", None)
    assert library_prices("gemini-2.5-flash-image") is None


def test_the_users_prices_go_first_then_the_table_then_the_library() -> None:
    book = PriceBook({"gemini-3.8-flash": OWN, "gemini-9": OWN})
    assert book.find("gemini-3.8-flash") == book.find("gemini-9") == book.find("models/gemini-9-001") == OWN
    assert PriceBook().find("gemini-3.8-flash") == table_prices("gemini-3.8-flash")
    assert PriceBook().find("gemini-9") is None


def test_the_users_file_is_read_where_one_is_named() -> None:
    data = b'{"models": {"m": [{"input": "9", "output": "9"}]}}'
    assert open_book("s3://b/p.json", lambda uri: data).find("m") == PriceList(OWN.rows, "s3://b/p.json", "")
    assert open_book("", lambda uri: b"").find("m") is None


def standing(store: MemoryStore, book: PriceBook | None = None, model: str = "m") -> PriceList | None:
    return standing_prices(store, "g", model, me="me", now=lambda: NOW, book=book)


def test_the_first_price_of_a_batch_stands_whatever_is_known_later() -> None:
    store = MemoryStore("memory://prices")
    assert standing(store) is None
    assert list(store.list("")) == []
    assert standing(store, PriceBook({"m": OWN})) == OWN
    assert standing(store) == standing(store, PriceBook({"m": PriceList((), "x")})) == OWN


def test_models_are_priced_apart() -> None:
    store = MemoryStore("memory://prices")
    standing(store, PriceBook({"m": OWN}))
    assert standing(store, model="gemini-3.8-flash") == table_prices("gemini-3.8-flash")
    assert len(list(store.list("g/prices"))) == 2


def test_of_two_writers_the_first_price_stands() -> None:
    store = MemoryStore("memory://prices")
    other = PriceList((Price(Decimal(1), Decimal(1)),), "theirs")

    def find(model: str, service: object = None) -> PriceList:
        standing(store, PriceBook({"m": other}))
        return OWN

    assert standing(store, SimpleNamespace(find=find)) == other  # type: ignore[arg-type]
