"""Upper bounds that hold, and an account that is never overdrawn."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.budget import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Account,
    account,
    upper_bound,
    upper_usage,
)
from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.prices import batch_cost, price_of

PRICE = price_of("gemini-2.5-pro", datetime(2026, 11, 1, tzinfo=UTC))


def asked(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(parts)}], **more}


@pytest.mark.parametrize(
    ("request_", "prompt", "output"),
    [
        (asked({"text": "hi"}), 100, OUTPUT_TOKENS),
        (asked({"text": "hi"}, generationConfig={"maxOutputTokens": 500}), 100, 500),
        (asked({"text": "hi"}, generation_config={"max_output_tokens": "500", "candidate_count": 3}), 100, 1500),
        (asked({"text": "hi"}, generationConfig={"maxOutputTokens": 10**9}), 100, OUTPUT_TOKENS),
        ({"contents": "just text"}, 100, OUTPUT_TOKENS),
        (asked({"text": "hi"}, {"fileData": {"fileUri": "gs://b/v.mp4"}}), INPUT_TOKENS, OUTPUT_TOKENS),
        (asked({"inlineData": {"data": "AAAA"}}), INPUT_TOKENS, OUTPUT_TOKENS),
        (asked({"text": "hi"}, tools=[{"googleSearch": {}}]), INPUT_TOKENS, OUTPUT_TOKENS),
        (asked({"text": "hi"}, cachedContent="cachedContents/x"), INPUT_TOKENS, OUTPUT_TOKENS),
        (asked({"text": "hi"}, systemInstruction={"parts": [{"fileData": {}}]}), INPUT_TOKENS, OUTPUT_TOKENS),
        (asked({"text": "hi"}, generationConfig={"maxOutputTokens": "many"}), 100, OUTPUT_TOKENS),
    ],
)
def test_the_most_that_a_request_can_use(request_: dict[str, Any], prompt: int, output: int) -> None:
    used = upper_usage(request_, 100)
    assert (used.prompt, used.candidates) == (prompt, output)


@given(text=st.text(), cap=st.integers(1, 5000), share=st.sampled_from([Decimal("0.5"), Decimal(1)]), data=st.data())
def test_no_answer_costs_more_than_its_bound(text: str, cap: int, share: Decimal, data: st.DataObject) -> None:
    request = asked({"text": text}, generationConfig={"maxOutputTokens": cap})
    size = len(msgspec.json.encode(request))
    assert PRICE is not None
    # A token covers a byte at least, and thoughts count into the allowance.
    thoughts = data.draw(st.integers(0, cap))
    usage = Usage(
        prompt=data.draw(st.integers(0, len(text.encode("utf-8", "surrogatepass")))),
        candidates=data.draw(st.integers(0, cap - thoughts)),
        thoughts=thoughts,
    )
    assert batch_cost(PRICE, usage, share) <= upper_bound(request, size, PRICE, share)


money = st.decimals(0, 100, places=6)


@given(limit=money, charges=st.lists(st.tuples(money, st.none() | money)), more=money)
def test_what_an_account_bears_keeps_it_inside_its_limit(
    limit: Decimal, charges: list[tuple[Decimal, Decimal | None]], more: Decimal
) -> None:
    now = account(limit, charges)
    after = account(limit, [*charges, (more, None)])
    assert now.bears(more) == (after.charged_usd <= limit)
    assert now.charged_usd == sum((upper if real is None else real for upper, real in charges), Decimal(0))


def test_an_account_without_a_limit_bears_everything_and_says_what_was_charged() -> None:
    assert Account(None, Decimal(5)).bears(Decimal(10**9))
    assert str(Account(None, Decimal(5))) == "5 USD charged"
    assert str(Account(Decimal(9), Decimal(5), Decimal(1))) == "6 of 9 USD charged"
