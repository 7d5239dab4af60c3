"""The emulator on a socket: a bare ASGI application, and a uvicorn protocol in a thread of its own.

uvicorn's own `Server` looks ten times a second whether it should stop. Here its protocol is put on an asyncio server
directly, so that a test starts and stops an emulator in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from uvicorn import Config
from uvicorn.server import ServerState

from airflow_provider_geminibatch.emulator.clock import http_date
from airflow_provider_geminibatch.emulator.service import Emulator
from airflow_provider_geminibatch.emulator.wire import Dropped, Reply, Request

if TYPE_CHECKING:
    # Which of uvicorn's two protocols it is depends on what is installed; they take the same arguments.
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Protocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as _Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Server:
    """A running emulator: where it is, and the emulator itself."""

    url: str
    port: int
    emulator: Emulator


class _Connection(_Protocol):
    """uvicorn's connection, which shows its transport to the application so that it can be dropped."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {"transport": transport}
        super().connection_made(transport)


def application(emulator: Emulator) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """The ASGI application of an emulator. Dropped connections need the transport in `scope["state"]`."""

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        # Stopping cancels what is under way; uvicorn would log that as a fault.
        with suppress(asyncio.CancelledError):
            body = await _body(receive)
            if body is not None:
                await _answer(emulator, scope, body, receive, send)

    return serve


async def _answer(emulator: Emulator, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
    try:
        reply = emulator.handle(_request(scope, body))
    except Dropped:
        await _drop(scope, receive)
        return
    await asyncio.sleep(reply.delay)
    await _write(reply, send, emulator)
    if reply.cut:
        await _drop(scope, receive)


async def _body(receive: Receive) -> bytes | None:
    """The body of a request, or None if its client goes before it is whole."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def _request(scope: Message, body: bytes) -> Request:
    return Request(
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
        peer=(scope.get("client") or ("",))[0],
        raw_path=scope.get("raw_path", b"").decode("latin-1"),
    )


async def _write(reply: Reply, send: Send, emulator: Emulator) -> None:
    body = b"" if reply.stream else json.dumps({} if reply.body is None else reply.body).encode()
    length = reply.length if reply.stream else len(body)
    headers = {
        "content-type": "application/json; charset=UTF-8",
        **reply.headers,
        **({} if length is None else {"content-length": str(length)}),
        "date": http_date(emulator.clock.now()),
    }
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
    for block in reply.stream or ():
        await send({"type": "http.response.body", "body": block, "more_body": True})
    if not reply.cut:
        await send({"type": "http.response.body", "body": body})


async def _drop(scope: Message, receive: Receive) -> None:
    """Close the connection under the client's feet, after what was written has left."""
    scope["state"]["transport"].close()
    while (await receive())["type"] != "http.disconnect":
        pass


@contextmanager
def running(emulator: Emulator | None = None, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    """Serve an emulator from a thread while the block runs, by default on a free loopback port.

    Raises OSError where the port is taken or the host is not one of this machine.
    """
    emulator = emulator or Emulator()
    listener = _listening(host, port)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(
        target=_run, args=(loop, _serve(emulator, listener, stop)), name="geminibatch-emulator", daemon=True
    )
    thread.start()
    name = f"[{host}]" if ":" in host else host
    bound: int = listener.getsockname()[1]
    try:
        yield Server(f"http://{name}:{bound}", bound, emulator)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _listening(host: str, port: int) -> socket.socket:
    # Listening from here on: a client that comes before the thread is ready waits in the backlog.
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _run(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, None]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(serving)
    finally:
        loop.close()


async def _serve(emulator: Emulator, listener: socket.socket, stop: asyncio.Event) -> None:
    # Forwarded addresses are not believed: the control API asks who is really there.
    options: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none"}
    config = Config(application(emulator), proxy_headers=False, **options)
    config.load()
    state = ServerState()

    def connection() -> asyncio.Protocol:
        return _Connection(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(connection, sock=listener)
    await stop.wait()
    server.close()
    for open_connection in tuple(state.connections):
        open_connection.transport.abort()
    # Requests whose connection is gone see a disconnect; what does not end by that is cancelled.
    requests = tuple(state.tasks)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    # What was aborted closes its socket in the loop's next round, for which nobody else may ask any more.
    await asyncio.sleep(0)


__all__ = ["Server", "application", "running"]
