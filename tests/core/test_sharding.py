"""Sharding loses, repeats and reorders nothing, and no shard exceeds a limit."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from airflow_provider_geminibatch.core import sharding
from airflow_provider_geminibatch.core.chunks import Chunk
from airflow_provider_geminibatch.core.names import parse_wire_key
from airflow_provider_geminibatch.core.rows import LINE_BYTES, Ready
from airflow_provider_geminibatch.core.sharding import Block, pack

TAG = "abcdefgh23456722"


def _ready(number: int, size: int) -> Ready:
    return Ready(b'"k%d"' % number, msgspec.json.encode({"n": number, "x": "x" * size}), b'{"c":%d}' % number)


ROWS = st.lists(st.integers(0, 300), max_size=60).map(lambda sizes: [_ready(at, size) for at, size in enumerate(sizes)])


def _shards(blocks: list[Block]) -> list[list[Block]]:
    return [list(group) for _, group in itertools.groupby(blocks, lambda block: block.shard)]


@given(ROWS, st.integers(1, 9), st.integers(500, 3000))
def test_every_row_comes_out_once_in_order_under_its_wire_key(rows: list[Ready], max_rows: int, max_bytes: int) -> None:
    blocks = list(pack(rows, tag=TAG, max_rows=max_rows, max_bytes=max_bytes))
    lines = [msgspec.json.decode(line) for block in blocks for line in block.lines.splitlines()]
    keys = [msgspec.json.decode(line) for block in blocks for line in block.keys.splitlines()]
    assert [line["request"]["n"] for line in lines] == list(range(len(rows)))
    assert keys == [[f"k{number}", {"c": number}] for number in range(len(rows))]
    places = [parse_wire_key(line["key"]) for line in lines]
    expected = [
        (TAG, at, row) for at, shard in enumerate(_shards(blocks)) for row in range(sum(block.rows for block in shard))
    ]
    assert places == expected


@given(ROWS, st.integers(1, 9), st.integers(500, 3000))
def test_no_shard_exceeds_a_limit_and_none_ends_early(rows: list[Ready], max_rows: int, max_bytes: int) -> None:
    shards = _shards(list(pack(rows, tag=TAG, max_rows=max_rows, max_bytes=max_bytes)))
    sizes = [(sum(block.rows for block in shard), sum(len(block.lines) for block in shard)) for shard in shards]
    assert all(count <= max_rows and size <= max_bytes for count, size in sizes)
    for (count, size), following in itertools.pairwise(zip(sizes, shards, strict=True)):
        first = following[1][0].lines.index(b"\n") + 1
        assert count[0] == max_rows or count[1] + first > max_bytes, size


@given(ROWS, st.integers(1, 9))
def test_content_depends_on_rows_and_not_on_the_build(rows: list[Ready], max_rows: int) -> None:
    one, other = (
        [block.content for block in pack(rows, tag=tag, max_rows=max_rows, max_bytes=10**6)] for tag in (TAG, "z" * 16)
    )
    assert one == other


@given(ROWS, st.randoms(use_true_random=False))
def test_contents_are_equal_only_for_equal_rows_in_equal_order(rows: list[Ready], random: object) -> None:
    def content(some: list[Ready]) -> bytes:
        return b"".join(block.content for block in pack(some, tag=TAG, max_rows=10**6, max_bytes=10**9))

    other = [structs.replace(row, key=b'"kx"') if at == 0 else row for at, row in enumerate(rows)]
    assert (content(rows) == content(other)) == (rows == other)
    assert (content(rows) == content(rows[::-1])) == (rows == rows[::-1])


@given(st.integers(0, 9999), st.integers(0, 9_999_999))
def test_a_line_is_never_longer_than_is_allowed_for(shard: int, row: int) -> None:
    ((block,),) = _shards(list(pack([Ready(b'"k"', b"", b"{}")], tag=TAG, max_rows=9, max_bytes=999, first=shard)))
    assert len(block.lines) + len(str(row)) - 1 <= LINE_BYTES


def test_blocks_stay_small_whatever_the_rows() -> None:
    rows = [_ready(number, 300_000) for number in range(10)] + [_ready(number, 1) for number in range(10, 3000)]
    blocks = list(pack(rows, tag=TAG, max_rows=10**6, max_bytes=10**9))
    assert all(
        len(block.lines) < sharding.BLOCK_BYTES + 400_000 and block.rows <= sharding.BLOCK_ROWS for block in blocks
    )
    assert len(blocks) >= 5


@given(ROWS, st.integers(1, 9), st.integers(0, 3))
def test_shards_are_numbered_from_the_first(rows: list[Ready], max_rows: int, part: int) -> None:
    blocks = list(pack(rows, tag=TAG, max_rows=max_rows, max_bytes=10**9, first=part * 1000))
    assert [group[0].shard for group in _shards(blocks)] == [
        part * 1000 + at for at in range(-(-len(rows) // max_rows))
    ]
    assert all(f'"{TAG}-{block.shard:04d}-'.encode() in block.lines for block in blocks)


@given(ROWS, st.lists(st.binary(max_size=4), min_size=60, max_size=60))
def test_the_brief_content_holds_what_varies_and_nothing_else_changes(rows: list[Ready], varying: list[bytes]) -> None:
    told = [structs.replace(row, varying=some) for row, some in zip(rows, varying, strict=False)]
    whole, brief = (list(pack(told, tag=TAG, max_rows=7, max_bytes=10**9, brief=brief)) for brief in (False, True))
    assert [block._replace(content=b"") for block in whole] == [block._replace(content=b"") for block in brief]
    assert b"".join(block.content for block in brief) == b"".join(b"%b %b\n" % (row.key, row.varying) for row in told)
    assert b"".join(block.content for block in whole) == b"".join(b"%b %b\n" % (row.key, row.request) for row in told)


CHUNKS = st.lists(st.tuples(st.integers(0, 90), st.booleans(), st.integers(0, 1)), max_size=50).map(
    lambda rows: [(*row, at) for at, row in enumerate(rows)]
)


def _mixed(rows: list[tuple[int, bool, int, int]]) -> list[Ready | Chunk]:
    """Runs of rows as chunks of two templates, and single rows between them."""
    out: list[Ready | Chunk] = []
    for (single, columns), run in itertools.groupby(rows, lambda row: (row[1], row[2])):
        made = [(b"k%d" % at, b"x" * size, b'{"c":%d}' % at if columns else b"{}") for size, _, _, at in run]
        keys, varying, along = (list(each) for each in zip(*made, strict=True))
        chunk = Chunk(b'{"n":"', b'"}', keys, varying, along if columns else None)
        out += chunk.rows() if single else [chunk]
    return out


@given(CHUNKS, st.integers(1, 9), st.integers(200, 3000), st.booleans())
def test_chunks_are_packed_as_their_rows_are(
    rows: list[tuple[int, bool, int, int]], max_rows: int, max_bytes: int, brief: bool
) -> None:
    mixed = _mixed(rows)
    plain = [row for each in mixed for row in (each.rows() if isinstance(each, Chunk) else (each,))]

    def files(some: list[Ready | Chunk] | list[Ready]) -> list[tuple[int, int, bytes, bytes, bytes]]:
        blocks = list(pack(some, tag=TAG, max_rows=max_rows, max_bytes=max_bytes, brief=brief))
        assert all(block.rows for block in blocks)
        return [
            (
                group[0].shard,
                sum(block.rows for block in group),
                *(b"".join(part) for part in zip(*(block[2:] for block in group), strict=True)),
            )
            for group in _shards(blocks)
        ]

    assert files(mixed) == files(plain)


@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 40)), max_size=5))
def test_numbers_are_those_of_wire_keys(asked: list[tuple[int, int]]) -> None:
    for start, count in asked:
        assert sharding._numbers(start, start + count) == [b"%07d" % row for row in range(start, start + count)]
