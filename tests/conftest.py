"""For every test: Hypothesis draws the same examples each time, and a busy machine is no failure."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

# Before anything imports gcsfs: its newer class asks a service of Google's, over gRPC, what kind a bucket is, for a minute each.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the crash matrices by the names of their files."""
    for item in items:
        if item.path.name.startswith("test_crash_matrix"):
            item.add_marker(pytest.mark.matrix)
