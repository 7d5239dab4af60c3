"""The filter of Vertex AI's lists: fields, operators, AND, OR, NOT, and what it refuses."""

from datetime import UTC, datetime

import pytest

from airflow_provider_geminibatch.emulator.filters import read_filter
from airflow_provider_geminibatch.emulator.wire import Refused

JOB = {
    "display_name": "nightly one",
    "model_display_name": "gemini-3.8-flash",
    "state": "JOB_STATE_RUNNING",
    "create_time": datetime(2026, 11, 1, 6, tzinfo=UTC),
    "labels": {"dag": "daily", "run": ""},
}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("  ", True),
        ('display_name="nightly one"', True),
        ('display_name = "nightly one"', True),
        ("display_name='nightly one'", True),
        ('display_name="nightly"', False),
        ("display_name=nightly", False),
        ('display_name!="nightly"', True),
        ('display_name:"night*"', True),
        ('display_name:"*one"', True),
        ('display_name:"one"', False),
        ('model_display_name="gemini-3.8-flash"', True),
        ('model_display_name!="gemini-3.8-flash"', False),
        ('state="JOB_STATE_RUNNING"', True),
        ("state=JOB_STATE_RUNNING", True),
        ('state!="JOB_STATE_RUNNING"', False),
        ('create_time="2026-11-01T06:00:00Z"', True),
        ('create_time!="2026-11-01T06:00:00Z"', False),
        ('create_time>"2026-11-01T05:59:59.999999999Z"', True),
        ('create_time>"2026-11-01T07:00:00+01:00"', False),
        ('create_time>="2026-11-01T07:00:00+01:00"', True),
        ('create_time<"2026-11-01T06:00:00Z"', False),
        ('create_time<="2026-11-01T06:00:00Z"', True),
        ("labels.dag=daily", True),
        ('labels.dag="weekly"', False),
        ("labels.dag!=weekly", True),
        ("labels.dag:*", True),
        ("labels.dag:dai*", True),
        ("labels.run:*", True),
        ("labels.other:*", False),
        ("labels.other!=daily", False),
        ('labels.dag=daily AND state="JOB_STATE_RUNNING"', True),
        ('labels.dag=daily AND state="JOB_STATE_FAILED"', False),
        ('labels.dag=daily state="JOB_STATE_FAILED"', False),
        ('labels.dag=weekly OR state="JOB_STATE_RUNNING"', True),
        ("NOT labels.dag=weekly", True),
        ("-labels.dag=weekly", True),
        ("NOT NOT labels.dag=weekly", False),
        ("labels.dag=weekly AND state=JOB_STATE_FAILED OR state=JOB_STATE_RUNNING", False),
        ("(labels.dag=weekly AND state=JOB_STATE_FAILED) OR state=JOB_STATE_RUNNING", True),
        ("NOT (labels.dag=daily OR state=JOB_STATE_FAILED)", False),
        ("((labels.dag=daily))", True),
    ],
)
def test_what_a_filter_selects(text, selected):
    assert read_filter(text)(JOB) is selected


def test_quotes_in_a_text_are_escaped():
    assert read_filter(r'display_name="say \"hi\""')({**JOB, "display_name": 'say "hi"'})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name=x", "'name' is no field"),
        ("labels=x", "'labels' is no field"),
        ("display_name", "unexpected 'the end'"),
        ("display_name=", "unexpected 'the end'"),
        ("display_name>x", "display_name does not take '>'"),
        ("state:JOB*", "state does not take ':'"),
        ("create_time:*", "create_time does not take ':'"),
        ("create_time>yesterday", "'yesterday' is not an RFC 3339 time"),
        ("create_time>2026-11-01", "is not an RFC 3339 time"),
        ("(state=x", "unexpected 'the end'"),
        ("(state=x(", "unexpected 'the end'"),
        ("state(x)", "unexpected '('"),
        ("state=x)", "unexpected ')'"),
        ("state=x AND", "unexpected 'the end'"),
        ('display_name="x', "unexpected '\"'"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(Refused) as refusal:
        read_filter(text)
    assert (refusal.value.code, refusal.value.status) == (400, "INVALID_ARGUMENT")
    assert says in refusal.value.message


def test_a_list_takes_a_filter(vertex, emulator, make_line):
    for name, label in (("a", "x"), ("b", "y"), ("b", "x")):
        vertex.create(make_line("k", "p"), displayName=name, labels={"part": label})
        emulator.clock.advance(minutes=1)
    assert vertex.listed('display_name="b"') == ["b", "b"]
    assert vertex.listed('display_name="b" AND labels.part=x') == ["b"]
    assert vertex.listed('create_time>"2026-11-01T06:00:30Z" AND labels.part:*') == ["b", "b"]
    vertex.emulator.clock.advance(hours=24)
    assert vertex.listed('state="JOB_STATE_SUCCEEDED" AND NOT display_name=b') == ["a"]
    reply = vertex.call("GET", f"{vertex.parent}/batchPredictionJobs", query={"filter": "nonsense"})
    assert reply.status == 400
