"""Identifiers that depend on the seed alone, and the pages of a list."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class Names:
    """Makes identifiers of small letters and digits; the n-th of a kind is the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: Counter[str] = Counter()

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


def next_page(items: Sequence[tuple[str, T]], size: int, token: str) -> tuple[list[T], str]:
    """A page of (id, item) pairs and the token of the page after it, empty at the end.

    The token names the last item shown, so that items which are added or removed meanwhile shift nothing.
    """
    start = 0
    if token:
        last = read_token(token)
        start = next((index + 1 for index, (name, _) in enumerate(items) if name == last), len(items))
    page = items[start : start + size]
    more = start + size < len(items)
    return [item for _, item in page], make_token(page[-1][0]) if more else ""


def make_token(name: str) -> str:
    """An opaque page token that means "after this item"."""
    return base64.urlsafe_b64encode(f"after:{name}".encode()).decode().rstrip("=")


def read_token(token: str) -> str:
    """The item that a page token names; empty for a token that is none."""
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except ValueError:
        return ""
    return text.removeprefix("after:") if text.startswith("after:") else ""


__all__ = ["Names", "make_token", "next_page", "read_token"]
