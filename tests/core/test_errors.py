"""The error tree: sentences, facts, and survival of a trip between processes."""

from __future__ import annotations

import inspect
import pickle
import re
from dataclasses import fields
from datetime import UTC, datetime

import pytest

from airflow_provider_geminibatch.core import errors
from airflow_provider_geminibatch.core.errors import BadRows, GeminiBatchError, Problem

EVERY = sorted(
    (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GeminiBatchError)),
    key=lambda kind: kind.__name__,
)
LEAVES = [kind for kind in EVERY if fields(kind) and kind is not BadRows]
SAMPLES = {"datetime": datetime(2026, 1, 1, tzinfo=UTC), "int": 400, "int | None": 503}


def sample(kind: type[GeminiBatchError]) -> GeminiBatchError:
    return kind(*[SAMPLES.get(str(field.type), f"<{field.name}>") for field in fields(kind)])


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_the_sentence_holds_every_fact(kind: type[GeminiBatchError]) -> None:
    error = sample(kind)

    shown = str(error)

    for field in fields(kind):
        value = getattr(error, field.name)
        assert (f"{value:%Y-%m-%d}" if isinstance(value, datetime) else str(value)) in shown
    assert not re.search(r"\{\w*\}", shown.replace("{{ … }}", ""))


# Unusable takes its advice as a fact.
ADVICE = re.compile(
    r"(?i)retry|clear|set |check|correct|pass |put |look|wait|use |run |repair|undo|restore|make room|point|nothing needs|<do>"
)


@pytest.mark.parametrize(
    "kind",
    LEAVES,
    ids=lambda kind: kind.__name__,
)
def test_the_sentence_says_what_it_means_for_money_and_what_to_do(kind: type[GeminiBatchError]) -> None:
    shown = str(sample(kind))

    assert re.search(r"(?i)paid|pay|nothing|cost|not cancelled", shown)
    assert ADVICE.search(shown)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[GeminiBatchError]) -> None:
    error = sample(kind)

    again = pickle.loads(pickle.dumps(error))

    assert (type(again), str(again)) == (kind, str(error))
    by_name = kind(**{field.name: getattr(error, field.name) for field in fields(kind)})
    assert str(pickle.loads(pickle.dumps(by_name))) == str(error)


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) | {"GeminiBatchError"}

    assert drawn == {kind.__name__ for kind in EVERY}


def test_bad_rows_show_the_first_problems_and_count_the_rest() -> None:
    error = BadRows("rows.csv", (Problem("line 2", "no key", "fill id"), Problem("line 3", "empty")), 7)

    assert str(error) == (
        "rows.csv: 7 problems; nothing was uploaded, sent or paid.\n"
        "  line 2: no key (fill id)\n  line 3: empty\n  … and 5 more\n"
        "Correct the rows and clear the task."
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_service_that_did_not_answer_is_said_to_have_given_no_answer() -> None:
    shown = str(errors.ServiceBusy("list of jobs", None, "ReadTimeout"))

    assert "None" not in shown
    assert "(no answer: ReadTimeout)" in shown


def test_no_error_names_an_option_that_does_not_exist() -> None:
    assert "on_lost_job" not in str(errors.JobUnreachable("batches/1", 404, "not found"))
