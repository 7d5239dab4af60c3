"""Runs example Dags inside one process, as ``dag.test()`` does: ``run_dags.py FOLDER DAG_ID[=LOGICAL_DATE] …``.

Prints one JSON line per run, ``{"dag": …, "run_id": …, "state": …, "tasks": {…}}``.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 3.1
    from airflow.models.dagbag import DagBag


def main(folder: str, *wanted: str) -> None:
    bag = DagBag(folder)
    if bag.import_errors:
        raise SystemExit(str(bag.import_errors))
    for each in wanted:
        dag_id, _, date = each.partition("=")
        run = bag.dags[dag_id].test(logical_date=datetime.fromisoformat(date) if date else None)
        tasks = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        print(json.dumps({"dag": dag_id, "run_id": run.run_id, "state": str(run.state), "tasks": tasks}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
