from __future__ import annotations

import subprocess
import sys

import pytest

import airflow_provider_geminibatch as package

pytestmark = pytest.mark.airflow


def test_every_public_name_is_there_and_in_order():
    assert package.__all__ == sorted(package._HOMES)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name


def test_a_name_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="GeminiBatchOperatr"):
        package.GeminiBatchOperatr  # noqa: B018 - the access is what is tested


def test_the_package_itself_imports_nothing():
    code = (
        "import sys; before = set(sys.modules); import airflow_provider_geminibatch; print(*set(sys.modules) - before)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in told if name.split(".")[0] in ("airflow", "google", "msgspec", "pyarrow", "httpx")]
