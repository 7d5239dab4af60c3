"""The emulated BigQuery: the subset of SQL and of the REST API that the package uses, and clear refusals beyond it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_geminibatch.emulator.clock import Clock
from airflow_provider_geminibatch.emulator.table_jobs import BIGQUERY_ENDPOINTS, bigquery_handlers
from airflow_provider_geminibatch.emulator.tables import Tables
from airflow_provider_geminibatch.emulator.wire import Call, Refused, Request

START = datetime(2026, 11, 1, tzinfo=UTC)
PLACE = "us-central1"
ROWS = "bq://p-one.d.rows"


class Api:
    """Calls the tables as the REST API would."""

    def __init__(self) -> None:
        self.tables = Tables(Clock(START, speed=0))
        self.tables.make_dataset("p-one.d", PLACE)
        self.tables.write_table(
            ROWS,
            [{"name": "id", "type": "INTEGER"}, {"name": "ask", "type": "JSON"}, {"name": "note", "type": "STRING"}],
            ({"id": at, "ask": {"contents": [{"parts": [{"text": f"x{at}"}]}]}, "note": f"n{at}"} for at in range(5)),
        )
        self._handlers = bigquery_handlers(self.tables)

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        for endpoint, verb, pattern in BIGQUERY_ENDPOINTS:
            found = re.fullmatch(pattern, f"/bigquery/v2/projects/p-one/{path}") if verb == method else None
            if found:
                request = Request(method, path, query, {}, b"" if body is None else json.dumps(body).encode())
                return self._handlers[endpoint](Call(request, endpoint, found.groupdict(), "", START)).body
        raise AssertionError(path)

    def refusal(self, method: str, path: str, body: Any = None, **query: str) -> Refused:
        with pytest.raises(Refused) as refusal:
            self.call(method, path, body, **query)
        return refusal.value

    @staticmethod
    def asked(sql: str, job: str = "", place: str = PLACE, dry: bool = False, **config: Any) -> dict[str, Any]:
        reference = {"location": place} | ({"jobId": job} if job else {})
        query = {"query": sql, "useLegacySql": False, **config}
        return {"jobReference": reference, "configuration": {"dryRun": dry, "query": query}}

    def run(self, sql: str, **more: Any) -> list[list[str | None]]:
        job = self.call("POST", "jobs", self.asked(sql, **more))
        assert "errorResult" not in job["status"], job
        page = self.call("GET", f"queries/{job['jobReference']['jobId']}", location=PLACE)
        return [[cell["v"] for cell in row["f"]] for row in page["rows"]]


@pytest.fixture
def api() -> Api:
    return Api()


def into(table: str, **more: str) -> dict[str, Any]:
    return {"destinationTable": {"projectId": "p-one", "datasetId": "d", "tableId": table}, **more}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("CONCAT('a-', LPAD(CAST(DIV(7, 2) AS STRING), 4, '0'))", "a-0003"),
        ("MOD(7, 2)", "1"),
        ('JSON_VALUE(PARSE_JSON(\'{"a": {"b": [1, "x"]}}\'), \'$.a.b[1]\')', "x"),
        ("JSON_TYPE(JSON_QUERY(PARSE_JSON('{\"a\": null}'), '$.a'))", "null"),
        ("JSON_QUERY(PARSE_JSON('{}'), '$.a')", None),
        ("SAFE.PARSE_JSON('oops')", None),
        ("TO_JSON_STRING('5\"')", '"5\\""'),
        ("TO_JSON_STRING(PARSE_JSON('{ \"a\": 5 }'))", '{"a":5}'),
        ("TO_JSON_STRING(JSON_REMOVE(PARSE_JSON('{\"a\":1,\"b\":2}'), '$.a', '$.z'))", '{"b":2}'),
        ("TO_JSON_STRING(JSON_ARRAY(1, JSON_OBJECT('a', JSON_ARRAY())))", '[1,{"a":[]}]'),
        ("TO_JSON_STRING(JSON_OBJECT('a', 1, 'b', 'x'))", '{"a":1,"b":"x"}'),
        ("ARRAY_LENGTH(JSON_QUERY_ARRAY(PARSE_JSON('{\"a\":[1,2]}'), '$.a'))", "2"),
        (r"""REGEXP_REPLACE('{"a":"{}"}', r'"(?:[^"\\]|\\.)*"', '""')""", '{"":""}'),
        ("CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5('a')), 1, 3)) AS INT64)", str(0x0CC)),
        ("BYTE_LENGTH('é')", "2"),
        ("IF(STARTS_WITH('ab', 'a'), 'yes', 'no')", "yes"),
        ("'it\\'s \\n'", "it's \n"),
    ],
)
def test_the_functions_that_our_statements_use(api: Api, expression: str, value: str | None) -> None:
    assert api.run(f"SELECT {expression} AS value") == [[value]]


def test_rows_are_numbered_joined_and_unnested(api: Api) -> None:
    sql = """-- the second half
    SELECT `id`, ROW_NUMBER() OVER (ORDER BY id DESC) AS place FROM `p-one.d.rows` AS rows
    WHERE EXISTS (SELECT 1 FROM UNNEST(JSON_QUERY_ARRAY(ask, '$.contents')) AS turn
                  WHERE JSON_TYPE(JSON_QUERY(turn, '$.parts')) = 'array') AND id > 2"""
    assert api.run(sql) == [["4", "1"], ["3", "2"]]
    assert api.run("SELECT COUNTIF(id > 2) AS n, BIT_XOR(id) AS x FROM `p-one.d.rows`") == [["2", "4"]]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT FARM_FINGERPRINT('a') AS x", "Function not found: FARM_FINGERPRINT"),
        ("DROP TABLE `p-one.d.rows`", "runs no DROP statement"),
        ("SELECT 'a", "Syntax error"),
        ("SELECT CAST('x' AS DATE) AS d", "casts to STRING, INT64, FLOAT64"),
        ("SELECT nowhere FROM `p-one.d.rows`", "no such column"),
        ("SELECT `nowhere` FROM `p-one.d.rows`", "no such column"),
        ("SELECT CAST('x' AS INT64) AS n", "Bad int64 value: x"),
        ("", "Unexpected end of statement"),
    ],
)
def test_what_is_outside_of_the_subset_is_a_clear_400(api: Api, sql: str, said: str) -> None:
    refusal = api.refusal("POST", "jobs", api.asked(sql))
    assert (refusal.code, said in refusal.message) == (400, True), refusal.message


def test_a_job_id_is_taken_once(api: Api) -> None:
    api.call("POST", "jobs", api.asked("SELECT 1 AS one", job="mine"))
    refusal = api.refusal("POST", "jobs", api.asked("SELECT 2 AS two", job="mine"))
    assert (refusal.code, refusal.details) == (409, [{"reason": "duplicate", "message": refusal.message}])
    assert api.call("GET", "queries/mine", location=PLACE)["rows"] == [{"f": [{"v": "1"}]}]
    assert api.refusal("GET", "jobs/mine", location="europe-west4").code == 404


def test_a_result_goes_into_a_table_that_must_be_empty(api: Api) -> None:
    sql = "SELECT id, ask, CONCAT(note, '!') AS said FROM `p-one.d.rows` WHERE id < 2"
    assert "errorResult" not in api.call("POST", "jobs", api.asked(sql, **into("made")))["status"]
    assert [column["type"] for column in api.tables.schema("bq://p-one.d.made")] == ["INTEGER", "JSON", "STRING"]
    assert api.tables.read_rows("bq://p-one.d.made")[1]["said"] == "n1!"

    again = api.call("POST", "jobs", api.asked(sql, **into("made")))
    assert again["status"]["errorResult"]["reason"] == "duplicate"
    api.call("POST", "jobs", api.asked(sql, **into("made", writeDisposition="WRITE_TRUNCATE")))
    api.call("POST", "jobs", api.asked(sql, **into("made", writeDisposition="WRITE_APPEND")))
    assert api.call("GET", "datasets/d/tables/made")["numRows"] == "4"


def test_a_dry_run_gives_the_columns_and_changes_nothing(api: Api) -> None:
    job = api.call("POST", "jobs", api.asked("SELECT id, ask FROM `p-one.d.rows`", dry=True, **into("made")))
    query = job["statistics"]["query"]
    assert [column["type"] for column in query["schema"]["fields"]] == ["INTEGER", "JSON"]
    assert query["totalBytesProcessed"] == "0"
    assert not api.tables.exists("bq://p-one.d.made")
    assert api.refusal("POST", "jobs", api.asked("SELECT x FROM `p-one.d.gone`", dry=True)).code == 404


def test_a_script_is_done_whole_or_not_at_all(api: Api) -> None:
    script = (
        "BEGIN TRANSACTION; DELETE FROM `p-one.d.rows` WHERE id = 1; INSERT `p-one.d.rows` (id) {}; COMMIT TRANSACTION;"
    )
    refusal = api.refusal("POST", "jobs", api.asked(script.format("SELECT CAST('x' AS INT64)")))
    assert refusal.code == 400
    assert len(api.tables.read_rows(ROWS)) == 5

    api.call("POST", "jobs", api.asked(script.format("VALUES (9), (10)")))
    assert [row["id"] for row in api.tables.read_rows(ROWS)] == [0, 2, 3, 4, 9, 10]


@pytest.mark.parametrize(("expected", "left"), [("5", 4), ("6", 5)])
def test_a_script_goes_no_further_than_what_it_asserts(api: Api, expected: str, left: int) -> None:
    script = f"""BEGIN TRANSACTION;
    ASSERT (SELECT CAST(COUNT(*) AS STRING) FROM `p-one.d.rows`) = '{expected}' AS 'so many rows';
    DELETE FROM `p-one.d.rows` WHERE id = 1;
    COMMIT TRANSACTION;"""
    if left == 4:
        api.call("POST", "jobs", api.asked(script))
    else:
        assert "so many rows" in api.refusal("POST", "jobs", api.asked(script)).message
    assert len(api.tables.read_rows(ROWS)) == left


def load(api: Api, lines: bytes, job: str = "load") -> Any:
    columns = [{"name": "a", "type": "STRING"}, {"name": "j", "type": "JSON"}]
    config = {"schema": {"fields": columns}, "sourceFormat": "NEWLINE_DELIMITED_JSON", **into("loaded")}
    about = {
        "jobReference": {"jobId": job, "location": PLACE},
        "configuration": {"load": {**config, "writeDisposition": "WRITE_EMPTY"}},
    }
    body = b"--x\r\nContent-Type: application/json\r\n\r\n" + json.dumps(about).encode()
    body += b"\r\n--x\r\nContent-Type: application/octet-stream\r\n\r\n" + lines + b"\r\n--x--\r\n"
    request = Request("POST", "", {}, {"content-type": "multipart/related; boundary=x"}, body)
    return api._handlers["bigquery.jobs.load"](
        Call(request, "bigquery.jobs.load", {"project": "p-one"}, "", START)
    ).body


def test_lines_are_loaded_whole_or_not_at_all(api: Api) -> None:
    for lines, said in ((b'{"a": "x"}\n{oops\n', "not JSON"), (b'{"a": "x", "b": 1}\n', "No such field: b")):
        with pytest.raises(Refused, match=said):
            load(api, lines)
    assert not api.tables.exists("bq://p-one.d.loaded")
    load(api, b'{"a": "x\\r\\n", "j": {"k": [1]}}\n{"a": null}\n')
    assert api.tables.read_rows("bq://p-one.d.loaded") == [{"a": "x\r\n", "j": '{"k":[1]}'}, {"a": None, "j": None}]
    with pytest.raises(Refused) as refusal:
        load(api, b"")
    assert refusal.value.code == 409


def test_columns_are_added_and_never_changed(api: Api) -> None:
    fields = api.tables.schema(ROWS)
    api.call("PATCH", "datasets/d/tables/rows", {"schema": {"fields": [*fields, {"name": "more", "type": "STRING"}]}})
    assert api.tables.read_rows(ROWS)[0]["more"] is None
    assert api.refusal("PATCH", "datasets/d/tables/rows", {"schema": {"fields": fields[1:]}}).code == 400


def test_a_query_takes_values_by_name(api: Api) -> None:
    values = [{"name": "most", "parameterType": {"type": "INT64"}, "parameterValue": {"value": "1"}}]
    assert api.run("SELECT id FROM `p-one.d.rows` WHERE id < @most", queryParameters=values) == [["0"]]


def test_tables_are_made_filled_read_in_pages_and_deleted(api: Api) -> None:
    reference = {"projectId": "p-one", "datasetId": "d", "tableId": "t"}
    fields = [{"name": "a", "type": "STRING"}, {"name": "b", "type": "TIMESTAMP"}, {"name": "c", "type": "BOOL"}]
    api.call("POST", "datasets/d/tables", {"tableReference": reference, "schema": {"fields": fields}})
    assert (
        api.refusal("POST", "datasets/d/tables", {"tableReference": reference, "schema": {"fields": fields}}).code
        == 409
    )
    rows = [{"json": {"a": f"r{at}", "b": "2026-11-01T00:00:00+00:00", "c": at % 2 == 0}} for at in range(3)]
    api.call("POST", "datasets/d/tables/t/insertAll", {"rows": rows})

    page = api.call("GET", "datasets/d/tables/t/data", maxResults="2", selectedFields="c,a")
    assert [cell["v"] for cell in page["rows"][1]["f"]] == ["r1", "false"]
    rest = api.call("GET", "datasets/d/tables/t/data", maxResults="2", pageToken=page["pageToken"])
    assert rest["rows"] == [{"f": [{"v": "r2"}, {"v": "1793491200.0"}, {"v": "true"}]}]
    assert "pageToken" not in rest

    api.call("PATCH", "datasets/d/tables/t", {"expirationTime": "5"})
    assert api.call("GET", "datasets/d/tables/t")["expirationTime"] == "5"
    assert [table["tableReference"]["tableId"] for table in api.call("GET", "datasets/d/tables")["tables"]] == [
        "rows",
        "t",
    ]
    api.call("DELETE", "datasets/d/tables/t")
    assert api.refusal("GET", "datasets/d/tables/t").code == 404


def test_a_data_set_is_in_one_place_and_queries_elsewhere_do_not_find_it(api: Api) -> None:
    made = api.call("POST", "datasets", {"datasetReference": {"datasetId": "eu"}, "location": "europe-west4"})
    assert made == api.call("GET", "datasets/eu")
    assert api.tables.dataset_location("bq://p-one.eu.any") == "europe-west4"
    assert api.refusal("GET", "datasets/none").code == 404
    job = api.call("POST", "jobs", api.asked("SELECT id FROM `p-one.d.rows`", place="europe-west4"))
    assert "was not found in location europe-west4" in job["status"]["errorResult"]["message"]
