"""Gives the test run an Airflow home of its own and takes every real credential away.

Loaded by `-p` in pyproject.toml, since it must act before anything imports Airflow, which reads its environment once.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

CREDENTIALS = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT")

for name in [name for name in os.environ if name.startswith("AIRFLOW_") or name in CREDENTIALS]:
    del os.environ[name]

home = tempfile.mkdtemp(prefix="geminibatch-tests-")
atexit.register(shutil.rmtree, home, ignore_errors=True)
os.environ.update(
    AIRFLOW_HOME=home,
    AIRFLOW__CORE__UNIT_TEST_MODE="True",
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS="False",
)
