"""Prompt caches at the emulator: what a request that names one is answered, what it costs, and what becomes of a dead one."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.emulator import Emulator
from tests.emulator.conftest import FLASH, Api

SYSTEM = {"parts": [{"text": "You are a careful librarian. " * 200}]}


def make(api: Api, *, ttl: str = "180000s", **more: Any) -> Any:
    body = {"model": f"models/{FLASH}", "displayName": "shared", "systemInstruction": SYSTEM, "ttl": ttl, **more}
    return api.call("POST", "/v1/cachedContents", body)


def row(**request: Any) -> str:
    return json.dumps({"key": "k0", "request": {"contents": [{"parts": [{"text": "Which shelf?"}]}], **request}})


def answer(api: Api, line: str) -> Any:
    reply = api.create(line)
    assert reply.status == 200, reply.body
    return api.results(reply.body["name"])[0]


def test_a_cached_prefix_gives_the_same_answer_as_the_prefix_itself(api: Api) -> None:
    name = make(api).body["name"]
    plain, cached = answer(api, row(systemInstruction=SYSTEM)), answer(api, row(cachedContent=name))
    assert cached["response"]["candidates"] == plain["response"]["candidates"]
    usage = cached["response"]["usageMetadata"]
    assert usage["cachedContentTokenCount"] == 1450
    assert usage["promptTokenCount"] == plain["response"]["usageMetadata"]["promptTokenCount"]


def test_cached_tokens_and_their_storage_are_on_the_bill(api: Api, emulator: Emulator) -> None:
    name = make(api).body["name"]
    answer(api, row(systemInstruction=SYSTEM))
    whole = Decimal(emulator.bill()["entries"][0]["usd"])
    answer(api, row(cachedContent=name))
    bill = emulator.bill()
    assert Decimal(bill["entries"][0]["usd"]) - whole < whole
    # 1,450 tokens for two days at 0.50 USD a million and hour.
    assert bill["caches"] == {"count": 1, "storage_usd": "0.0348"}


def test_rows_of_a_dead_cache_fail_and_cost_nothing(api: Api, emulator: Emulator) -> None:
    name = make(api, ttl="60s").body["name"]
    assert answer(api, row(cachedContent=name))["error"]["code"] == 7
    assert emulator.bill()["entries"][0]["usd"] == "0"


def test_what_belongs_into_the_cache_may_not_stand_beside_it(api: Api) -> None:
    name = make(api).body["name"]
    reply = api.create(row(cachedContent=name, systemInstruction=SYSTEM))
    assert (reply.status, reply.body["error"]["message"][:34]) == (400, "CachedContent can not be used with")


def test_a_small_prefix_is_refused(api: Api) -> None:
    reply = make(api, systemInstruction={"parts": [{"text": "Be brief."}]})
    assert (reply.status, "too small" in reply.body["error"]["message"]) == (400, True)


def test_a_cache_is_found_kept_alive_and_deleted(api: Api, emulator: Emulator) -> None:
    name = make(api, ttl="3600s").body["name"]
    path = f"/v1/{name}"
    assert [one["name"] for one in api.get("cachedContents")["cachedContents"]] == [name]
    emulator.clock.advance(minutes=59)
    assert api.call("PATCH", path, {"ttl": "7200s"}).status == 200
    emulator.clock.advance(hours=1.5)
    assert api.get(name)["displayName"] == "shared"
    assert api.call("DELETE", path).status == 200
    assert api.call("GET", path).status == 403
    assert api.get("cachedContents") == {}


def test_a_lost_reply_leaves_a_cache(api: Api, emulator: Emulator) -> None:
    from airflow_provider_geminibatch.emulator.wire import Dropped

    emulator.scenario("cache_reply_lost")
    with pytest.raises(Dropped):
        make(api)
    assert len(api.get("cachedContents")["cachedContents"]) == 1


def test_a_call_may_name_a_cache(api: Api) -> None:
    name = make(api).body["name"]
    asked = {"contents": [{"parts": [{"text": "Which shelf?"}]}], "cachedContent": name}
    reply = api.call("POST", f"/v1/models/{FLASH}:generateContent", asked)
    assert reply.body["usageMetadata"]["cachedContentTokenCount"] == 1450
    asked["cachedContent"] = "cachedContents/nobodys"
    assert api.call("POST", f"/v1/models/{FLASH}:generateContent", asked).status == 403
