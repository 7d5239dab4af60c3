"""The crash matrix of tables on a real PostgreSQL, for every scene; what replaces a window is in the matrix of all sinks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Base, postgres_server
from tests.jobs.test_crash_matrix_landings import SCENES, Tables, through_all_effects

pytestmark = pytest.mark.slow

# An effect that is done and not answered, and one that is held up while somebody else does the same.
WAYS = ("lost", "frozen")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as host:
        yield host


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scene", [name for name in SCENES if name != "replacement"])
def test_whatever_goes_wrong_a_window_is_the_old_one_or_the_new_one(
    scene: str, way: str, postgres: str, tmp_path: Path
) -> None:
    assert through_all_effects(lambda: Tables(Base("psycopg3", tmp_path, lambda: postgres)), scene, way) > 4
