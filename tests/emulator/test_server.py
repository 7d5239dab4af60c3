"""The emulator on a socket: headers, dropped connections, the address it binds, the control API."""

import http.client
import json
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import pytest

from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.emulator.wire import Request

KEY = {"x-goog-api-key": "any"}


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), {**KEY, **headers})
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


def control(server, what, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    with urlopen(HttpRequest(f"{server.url}/_emulator/{what}", data, method=method), timeout=10) as reply:
        return json.load(reply)


def create(server):
    requests = [{"request": {"contents": [{"parts": [{"text": "hi"}]}]}}]
    body = {"batch": {"displayName": "d", "inputConfig": {"requests": {"requests": requests}}}}
    return ask(server, "POST", "/v1/models/gemini-3.8-flash:batchGenerateContent", body)


def test_every_reply_is_dated_by_the_emulated_clock(server, emulator):
    for path in ("/v1/models", "/v1/nowhere", "/_emulator/health"):
        assert ask(server, "GET", path)[1]["date"] == "Sun, 01 Nov 2026 06:00:00 GMT"
    emulator.clock.advance(days=1)
    assert ask(server, "GET", "/v1/models")[1]["date"] == "Mon, 02 Nov 2026 06:00:00 GMT"


def test_it_binds_to_loopback(server):
    assert urlsplit(server.url).hostname == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with socket.socket() as probe:
            probe.settimeout(1)
            assert address.startswith("127.") or probe.connect_ex((address, server.port)) != 0


def test_a_taken_port_is_an_error_at_once(server):
    with pytest.raises(OSError, match="in use"), running(Emulator(), port=server.port):
        pass


def test_it_starts_and_stops_again_and_again():
    ports = []
    for _ in range(20):
        with running() as server:
            ports.append(server.port)
    assert len(ports) == 20
    assert all(ports)


def test_stopping_does_not_wait_for_idle_clients(emulator):
    with running(emulator) as server:
        idle = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"POST /v1/models/m:countTokens HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        assert ask(server, "GET", "/_emulator/health")[0] == 200
    idle.close()
    half.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "geminibatch-emulator"]


def test_a_lost_reply_drops_the_connection_after_the_job_was_made(server, emulator):
    emulator.scenario("create_reply_lost")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        create(server)
    assert len(emulator.jobs) == 1
    assert create(server)[0] == 200


def test_half_a_body_is_no_request(server, emulator):
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.sendall(b"POST /v1/models/m:countTokens HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    assert ask(server, "GET", "/v1/models")[0] == 200
    assert emulator.log.count() == 1


def test_stopping_says_nothing_of_calls_under_way(emulator, caplog):
    emulator.scenario("slow_replies", endpoint="*", seconds=60)
    with running(emulator) as server:
        for request in (b"GET /v1/models HTTP/1.1\r\n", b"POST /v1/models HTTP/1.1\r\ncontent-length: 10\r\n"):
            caller = socket.create_connection(("127.0.0.1", server.port))
            caller.sendall(request + b"host: x\r\nx-goog-api-key: k\r\n\r\n")
            caller.close()
        assert ask(server, "GET", "/_emulator/health")[0] == 200
    assert caplog.records == []


def test_forwarded_addresses_do_not_open_the_control_api(server, emulator, monkeypatch):
    peers = []
    handle = emulator.handle
    monkeypatch.setattr(emulator, "handle", lambda request: peers.append(request.peer) or handle(request))
    ask(server, "GET", "/_emulator/health", **{"x-forwarded-for": "10.0.0.8"})
    assert peers == ["127.0.0.1"]


def test_a_slow_reply_outlives_the_patience_of_its_caller(server, emulator):
    emulator.scenario("slow_replies", seconds=60)
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as caller:
        body = b'{"batch":{"inputConfig":{"requests":{"requests":[{"request":{"contents":[]}}]}}}}'
        head = b"POST /v1/models/gemini-3.8-flash:batchGenerateContent HTTP/1.1\r\nhost: x\r\nx-goog-api-key: k\r\n"
        caller.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        with pytest.raises(TimeoutError):
            caller.recv(1)
    assert len(emulator.jobs) == 1


def test_a_cut_download_ends_before_its_length(server, emulator, api):
    name = api.create().body["name"]
    emulator.clock.advance(hours=24)
    emulator.scenario("cut_download")
    path = f"/v1/files/batch-{name.removeprefix('batches/')}:download?alt=media"
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(server, "GET", path)
    status, headers, whole = ask(server, "GET", path)
    assert (status, int(headers["content-length"])) == (200, len(whole))
    assert whole.startswith(cut.value.partial)
    assert len(cut.value.partial) == len(whole) // 2


def test_a_big_download_streams_whole(server, emulator, api, make_line):
    rows = [make_line(str(n), "word " * 100) for n in range(6000)]
    name = api.create(*rows).body["name"]
    emulator.clock.advance(hours=24)
    body = ask(server, "GET", f"/download/v1/files/batch-{name.removeprefix('batches/')}:download?alt=media")[2]
    assert len(body) > 2 * 2**20
    assert len({json.loads(line)["key"] for line in body.splitlines()}) == 6000


def test_many_callers_at_once_each_get_their_job(server, emulator):
    replies = []
    callers = [threading.Thread(target=lambda: replies.append(create(server))) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    names = {json.loads(body)["name"] for _, _, body in replies}
    assert len(names) == len(emulator.jobs) == 20


# Control


def test_control_shows_health_log_jobs_and_bill(server, emulator):
    create(server)
    assert control(server, "health") == {"status": "ok", "now": "2026-11-01T06:00:00.000000000Z"}
    log = control(server, "log")
    assert log["counts"] == {"batches.create": 1}
    assert log["requests"][0]["status"] == 200
    (job,) = control(server, "jobs")["jobs"]
    assert (job["displayName"], job["ordinal"], job["state"]) == ("d", 0, "BATCH_STATE_PENDING")
    control(server, "clock", {"advance": {"hours": 24}})
    assert control(server, "bill") == emulator.bill()
    assert emulator.bill()["entries"][0]["usd"] > "0"


def test_control_tells_what_scenarios_did_to_rows(server, emulator):
    emulator.scenario("blocked")
    emulator.scenario("duplicate")
    create(server)
    emulator.switch_off()
    create(server)
    one, other = control(server, "effects")["jobs"]
    assert one["effects"] == [{"scenarios": ["blocked", "duplicate"], "rows": one["rows"]}]
    assert (other["ordinal"], other["effects"]) == (1, [])


def test_control_switches_scenarios_on_and_off(server):
    known = control(server, "scenarios")["known"]
    assert {"name", "scope", "says", "evidence", "params"} == set(known[0])
    control(server, "scenarios", {"name": "burst_503", "endpoint": "batches.create", "times": 3})
    control(server, "scenarios", {"name": "late"})
    assert create(server)[0] == 503
    on = control(server, "scenarios")["on"]
    assert on[0] == {
        "name": "burst_503",
        "endpoint": "batches.create",
        "times": 3,
        "after": 0,
        "retry_after": 0.0,
        "left": 2,
    }
    assert len(control(server, "scenarios", {"name": "late"}, "DELETE")["on"]) == 1
    assert control(server, "scenarios", method="DELETE")["on"] == []


def test_control_moves_the_clock_and_resets(server, emulator):
    create(server)
    moved = control(server, "clock", {"advance": {"hours": 5, "minutes": 1}, "speed": 0})
    assert moved == control(server, "clock") == {"now": "2026-11-01T11:01:00.000000000Z", "speed": 0}
    assert control(server, "reset", {}) == {"status": "ok"}
    assert emulator.jobs == ()


@pytest.mark.parametrize(
    ("method", "what", "body", "status"),
    [
        ("POST", "scenarios", {"name": "nonsense"}, 400),
        ("POST", "scenarios", {"name": "late", "hours": "long"}, 400),
        ("POST", "clock", {"advance": {"hours": -1}}, 400),
        ("POST", "clock", {"advance": {"fortnights": 1}}, 400),
        ("POST", "clock", {"backwards": True}, 400),
        ("POST", "clock", [], 400),
        ("GET", "nothing", None, 404),
    ],
)
def test_control_refuses_what_it_does_not_know(server, method, what, body, status):
    got, _, raw = ask(server, method, f"/_emulator/{what}", body)
    assert got == status
    assert json.loads(raw)["error"]["message"]


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.8", 403), ("", 403)]
)
def test_control_hears_loopback_only(emulator, peer, status):
    assert emulator.handle(Request("GET", "/_emulator/health", peer=peer)).status == status
