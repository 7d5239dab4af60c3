"""An answer that does not fit the schema, asked again as a second turn: what the model said, and what was wrong with it.

Only what is certain to mean the same is extended: a request of one turn of text. Whatever else (files, several turns,
function calls) is asked again as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_ANSWER = 32_768
"""Characters of an answer that are shown back. A longer one costs more to repeat than it tells."""

LONGEST_PROBLEM = 1_000

_ASK = "Your answer does not fit the required schema: {problem}. Answer the request again, with the whole answer and nothing else."


def corrected(request: Mapping[str, Any], answer: str | None, problem: str) -> dict[str, Any] | None:
    """The request with the answer as the model's turn and a turn that names the problem; None where that is not certain.

    The next round begins with the root's request again, so a request never has more than these three turns.
    """
    contents = request.get("contents")
    if not problem or not answer or len(answer) > LONGEST_ANSWER or not _one_turn_of_text(contents):
        return None
    assert isinstance(contents, list)
    asked = {**contents[0], "role": "user"}
    told = _ASK.format(problem=problem[:LONGEST_PROBLEM].rstrip("."))
    answered = {"role": "model", "parts": [{"text": answer}]}
    return {**request, "contents": [asked, answered, {"role": "user", "parts": [{"text": told}]}]}


def _one_turn_of_text(contents: object) -> bool:
    if not isinstance(contents, list) or len(contents) != 1 or not isinstance(contents[0], dict):
        return False
    turn = contents[0]
    parts = turn.get("parts")
    return (
        turn.get("role", "user") == "user"
        and set(turn) <= {"role", "parts"}
        and isinstance(parts, list)
        and bool(parts)
        and all(isinstance(part, dict) and set(part) == {"text"} and isinstance(part["text"], str) for part in parts)
    )


__all__ = ["LONGEST_ANSWER", "corrected"]
