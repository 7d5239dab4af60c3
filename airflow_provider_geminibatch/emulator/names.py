"""Identifiers that depend on the seed alone, and the pages of a list."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import TypeVar

from airflow_provider_geminibatch.emulator.wire import refused

T = TypeVar("T")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class Names:
    """Makes identifiers of small letters and digits; the n-th of a kind is the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: Counter[str] = Counter()
        self._numbers = count(1)

    def number(self) -> int:
        """The next number of all that is created: what came later has a higher one."""
        return next(self._numbers)

    def make(self, kind: str, length: int) -> str:
        """The next identifier of a kind, `length` characters long."""
        self._made[kind] += 1
        data = f"{self._seed}/{kind}/{self._made[kind]}".encode()
        number = int.from_bytes(hashlib.blake2b(data).digest(), "big")
        characters = []
        for _ in range(length):
            number, digit = divmod(number, len(_ALPHABET))
            characters.append(_ALPHABET[digit])
        return "".join(characters)


def next_page(items: Sequence[tuple[int, T]], size: int, token: str) -> tuple[list[T], str]:
    """A page of (number, item) pairs with rising numbers, and the token of the page after it, empty at the end.

    The token says the last number shown, so items that come or go between two pages shift nothing.
    """
    last = read_token(token) if token else None
    rest = [item for item in items if last is None or item[0] > last]
    page = rest[:size]
    return [item for _, item in page], make_token(page[-1][0]) if len(rest) > size else ""


def make_token(number: int) -> str:
    """An opaque page token that means "after this number"."""
    return base64.urlsafe_b64encode(f"after:{number}".encode()).decode().rstrip("=")


def read_token(token: str) -> int:
    """The number in a page token. Raises the 400 of a token that is none (assumed)."""
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        return int(text.removeprefix("after:"))
    except ValueError:
        raise refused("bad_argument") from None


__all__ = ["Names", "make_token", "next_page"]
