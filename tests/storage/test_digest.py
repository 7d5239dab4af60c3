"""Digests beside other work are those of the bytes in their order."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.storage.digest import Digest


@given(st.lists(st.binary(max_size=50)))
def test_it_is_that_of_all_pieces_in_their_order(pieces: list[bytes]) -> None:
    with Digest() as digest:
        for piece in pieces:
            digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert digest.hexdigest() == digest.hexdigest()


def test_it_may_be_asked_between_pieces() -> None:
    with Digest() as digest:
        digest.update(b"a")
        assert digest.hexdigest() == hashlib.sha256(b"a").hexdigest()
        digest.update(b"b")
    assert digest.hexdigest() == hashlib.sha256(b"ab").hexdigest()
