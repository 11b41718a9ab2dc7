"""Small programs as people write them for `websockets`, each run on both libraries with only its imports exchanged.

Each program is a function of its library, which stands for the imports. The kinds are those of published servers:
chat, counters, health checks, charge points, language servers, shells, feeds, brokers, speech and robots.
"""

from __future__ import annotations

import asyncio
import http
import http.cookies
import itertools
import json
import logging
import secrets
import signal
import struct
import sys
import urllib.parse
from typing import Any

import pytest
from websockets.asyncio.client import connect

from support.both_libraries import Observations, at, both, refused, running
from support.fakes import tls_contexts, until

pytestmark = pytest.mark.peer

SERVER_TLS, CLIENT_TLS = tls_contexts()


async def read_all(client: Any) -> list[Any]:
    return [message async for message in client]


# --- the first steps ------------------------------------------------------------------------------


async def test_a_greeting() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def hello(websocket: Any) -> None:
            name = await websocket.recv()
            await websocket.send(f"Hello {name}!")

        async with library.serve(hello, "localhost", 0) as server, at(server) as client:
            await client.send("Ada")
            seen += await read_all(client)
            seen.append(client.close_code)

    assert await both(program) == ["Hello Ada!", 1000]


async def test_a_greeting_over_tls() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def hello(websocket: Any) -> None:
            await websocket.send(f"Hello {await websocket.recv()}!")

        async with library.serve(hello, "localhost", 0, ssl=SERVER_TLS) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"wss://localhost:{port}", ssl=CLIENT_TLS, proxy=None) as client:
                await client.send("Ada")
                seen += await read_all(client)

    await both(program)


async def test_a_clock_for_each_client() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def tick(websocket: Any) -> None:
            for number in itertools.count():
                await websocket.send(f"tick {number}")
                try:
                    await asyncio.wait_for(websocket.wait_closed(), 0.001)
                except asyncio.TimeoutError:
                    continue
                return

        async with library.serve(tick, "localhost", 0) as server, at(server) as client:
            seen += [await client.recv() for _ in range(5)]

    assert (await both(program))[-1] == "tick 4"


async def test_a_clock_for_all_clients() -> None:
    async def program(library: Any, seen: Observations) -> None:
        clients: set[Any] = set()

        async def register(websocket: Any) -> None:
            clients.add(websocket)
            try:
                await websocket.wait_closed()
            finally:
                clients.remove(websocket)

        async def tick() -> None:
            for number in itertools.count():
                library.broadcast(clients, f"tick {number}")
                await asyncio.sleep(0.001)  # the pace of the ticks

        async with library.serve(register, "localhost", 0) as server:
            ticking = asyncio.ensure_future(tick())
            async with at(server) as ada, at(server) as bob:
                for client in (ada, bob):
                    first = int((await client.recv()).split()[1])
                    following = [int((await client.recv()).split()[1]) for _ in range(5)]
                    seen.append(following == [*range(first + 1, first + 6)])
            ticking.cancel()
            await until(lambda: not clients)

    assert await both(program) == [True, True]


async def test_a_counter_that_all_clients_share() -> None:
    async def program(library: Any, seen: Observations) -> None:
        users: set[Any] = set()
        value = 0

        async def counter(websocket: Any) -> None:
            nonlocal value
            try:
                users.add(websocket)
                library.broadcast(users, json.dumps({"type": "users", "count": len(users)}))
                await websocket.send(json.dumps({"type": "value", "value": value}))
                async for message in websocket:
                    event = json.loads(message)
                    if event["action"] == "plus":
                        value += 1
                    elif event["action"] == "minus":
                        value -= 1
                    else:
                        logging.getLogger("counter").error("unsupported event: %s", event)
                    library.broadcast(users, json.dumps({"type": "value", "value": value}))
            finally:
                users.remove(websocket)
                library.broadcast(users, json.dumps({"type": "users", "count": len(users)}))

        async with library.serve(counter, "localhost", 0) as server:
            ada = await at(server)
            seen += [json.loads(await ada.recv()) for _ in range(2)]
            bob = await at(server)
            seen += [json.loads(await bob.recv()) for _ in range(2)]
            await bob.send('{"action": "plus"}')
            seen += [json.loads(await bob.recv()), json.loads(await ada.recv()), json.loads(await ada.recv())]
            await bob.close()
            seen.append(json.loads(await ada.recv()))
            await ada.close()

    await both(program)


async def test_a_game_for_two_with_a_key_and_watchers() -> None:
    async def program(library: Any, seen: Observations) -> None:
        games: dict[str, list[Any]] = {}
        watched: dict[str, list[Any]] = {}

        async def error(websocket: Any, message: str) -> None:
            await websocket.send(json.dumps({"type": "error", "message": message}))

        async def play(websocket: Any, moves: list[Any], connected: list[Any], player: str) -> None:
            async for message in websocket:
                event = json.loads(message)
                if event["column"] > 6:
                    await error(websocket, "no such column")
                    continue
                moves.append([player, event["column"]])
                library.broadcast(connected, json.dumps({"type": "play", "player": player, **event}))

        async def start(websocket: Any) -> None:
            key = secrets.token_urlsafe(12)
            games[key], watched[key] = [], [websocket]
            try:
                await websocket.send(json.dumps({"type": "init", "join": key}))
                await play(websocket, games[key], watched[key], "red")
            finally:
                del games[key]

        async def join(websocket: Any, key: str) -> None:
            try:
                moves, connected = games[key], watched[key]
            except KeyError:
                await error(websocket, "Game not found.")
                return
            connected.append(websocket)
            try:
                for player, column in moves.copy():
                    await websocket.send(json.dumps({"type": "play", "player": player, "column": column}))
                await play(websocket, moves, connected, "yellow")
            finally:
                connected.remove(websocket)

        async def handler(websocket: Any) -> None:
            event = json.loads(await websocket.recv())
            assert event["type"] == "init"
            await (join(websocket, event["join"]) if "join" in event else start(websocket))

        async with library.serve(handler, "localhost", 0) as server, at(server) as red, at(server) as yellow:
            await red.send('{"type": "init"}')
            key = json.loads(await red.recv())["join"]
            await red.send('{"column": 3}')
            seen.append(json.loads(await red.recv()))
            await yellow.send(json.dumps({"type": "init", "join": key}))
            seen.append(json.loads(await yellow.recv()))
            await yellow.send('{"column": 9}')
            await yellow.send('{"column": 2}')
            seen += [json.loads(await yellow.recv()), json.loads(await yellow.recv()), json.loads(await red.recv())]
            async with at(server) as lost:
                await lost.send('{"type": "init", "join": "none"}')
                seen += await read_all(lost)

    await both(program)


# --- deployment -----------------------------------------------------------------------------------


async def test_a_health_check_beside_the_websocket() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def health_check(connection: Any, request: Any) -> Any:
            if request.path == "/healthz":
                return connection.respond(http.HTTPStatus.OK, "OK\n")
            return None

        async def echo(websocket: Any) -> None:
            async for message in websocket:
                await websocket.send(message)

        async with library.serve(echo, "localhost", 0, process_request=health_check) as server:
            seen.append(await refused(server, "/healthz"))
            async with at(server) as client:
                await client.send("x")
                seen.append(await client.recv())

    await both(program)


PROGRAM = """
import asyncio, os, signal, sys
from {imports}.asyncio.server import serve

async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)

async def main():
    {main}

asyncio.run(main())
print("stopped")
"""

MAINS = {
    "close": """
    async with serve(handler, "127.0.0.1", 0) as server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()
""",
    "event": """
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    async with serve(handler, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await stop
""",
    "forever": """
    server = await serve(handler, "127.0.0.1", 0)
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(server.sockets[0].getsockname()[1], flush=True)
    try:
        await server.serve_forever()
    except asyncio.CancelledError:
        pass
""",
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("main", MAINS)
async def test_a_signal_stops_the_program(main: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        code = PROGRAM.format(imports=library.__name__, main=MAINS[main].strip())
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            client = await connect(f"ws://127.0.0.1:{port}/", proxy=None)
            await client.send("still there?")
            seen.append(await client.recv())
            process.send_signal(signal.SIGTERM)
            await client.wait_closed()
            seen += [client.close_code, await process.stdout.read(), await process.wait()]
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert await both(program) == ["still there?", 1001, b"stopped\n", 0]


# --- authentication -------------------------------------------------------------------------------

TOKENS = {"token-of-ada": "ada"}


async def test_authentication_by_message_query_and_cookie() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def first_message(websocket: Any) -> None:
            user = TOKENS.get(await websocket.recv())
            if user is None:
                await websocket.close(library.frames.CloseCode.INTERNAL_ERROR, "authentication failed")
                return
            await websocket.send(f"Hello {user}!")

        def query_param(connection: Any, request: Any) -> Any:
            query = urllib.parse.parse_qs(urllib.parse.urlparse(request.path).query)
            if "token" not in query:
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Missing token\n")
            user = TOKENS.get(query["token"][0])
            if user is None:
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Invalid token\n")
            connection.username = user
            return None

        def cookie(connection: Any, request: Any) -> Any:
            if "Upgrade" not in request.headers:
                page = b"<html></html>"
                headers = library.Headers(
                    {"Content-Length": str(len(page)), "Content-Type": "text/html", "Connection": "close"}
                )
                headers["Set-Cookie"] = "token=token-of-ada"
                return library.http11.Response(http.HTTPStatus.OK, "OK", headers, page)
            jar = http.cookies.SimpleCookie(request.headers.get("Cookie", ""))
            user = TOKENS.get(jar["token"].value) if "token" in jar else None
            if user is None:
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Invalid token\n")
            connection.username = user
            return None

        async def greet(websocket: Any) -> None:
            await websocket.send(f"Hello {websocket.username}!")

        async with library.serve(first_message, "localhost", 0) as server:
            for token in ("token-of-ada", "wrong"):
                async with at(server) as client:
                    await client.send(token)
                    try:
                        seen += await read_all(client)
                    except Exception as exc:
                        seen.append(type(exc).__name__)
                    seen.append((client.close_code, client.close_reason))
        async with library.serve(greet, "localhost", 0, process_request=query_param) as server:
            seen += [await refused(server), await refused(server, "/?token=x")]
            async with at(server, "/?token=token-of-ada") as client:
                seen.append(await client.recv())
        async with library.serve(greet, "localhost", 0, process_request=cookie) as server:
            seen.append(await refused(server))
            async with at(server, additional_headers={"Cookie": "a=b; token=token-of-ada"}) as client:
                seen.append(await client.recv())
            reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            page = await reader.read()
            seen += [page.startswith(b"HTTP/1.1 200 OK\r\n"), b"Set-Cookie: token=" in page, page[-13:]]
            writer.close()

    await both(program)


# --- charge points, language servers, shells ------------------------------------------------------


async def test_a_central_system_of_charge_points() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def on_connect(websocket: Any) -> None:
            try:
                requested = websocket.request.headers["Sec-WebSocket-Protocol"]
            except KeyError:
                await websocket.close()
                return
            charge_point = websocket.request.path.strip("/")
            seen.append((requested, websocket.subprotocol, charge_point))
            if not websocket.subprotocol:
                await websocket.close()
                return
            while True:
                try:
                    _, number, action, payload = json.loads(await websocket.recv())
                except library.exceptions.ConnectionClosed as exc:
                    seen.append(str(exc))
                    return
                await websocket.send(json.dumps([3, number, {"id": charge_point, "action": action, **payload}]))

        server = await library.serve(on_connect, "0.0.0.0", 0, subprotocols=["ocpp2.0.1", "ocpp1.6"])
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/CP_1", subprotocols=["ocpp1.6"], proxy=None) as client:  # type: ignore[list-item]
            await client.send('[2, "1", "BootNotification", {"reason": "PowerUp"}]')
            seen.append(json.loads(await client.recv()))
        server.close()
        await server.wait_closed()

    await both(program)


async def test_a_language_server() -> None:
    async def program(library: Any, seen: Observations) -> None:
        answers: set[Any] = set()

        async def lsp(websocket: library.ServerConnection) -> None:  # type: ignore[name-defined]
            while True:
                try:
                    request = json.loads(await websocket.recv(decode=False))
                except library.exceptions.ConnectionClosedOK:
                    break
                answer = {"jsonrpc": "2.0", "id": request["id"], "result": {"capabilities": {}}}
                answers.add(asyncio.ensure_future(websocket.send(json.dumps(answer))))
                if request["method"] == "exit":
                    await asyncio.wait(answers)
                    await websocket.close()

        async with library.serve(lsp, "localhost", 0) as server:
            for sock in server.sockets:
                seen.append(sock.getsockname()[1] > 0)
            async with at(server) as client:
                await client.send('{"id": 1, "method": "initialize"}')
                seen.append(json.loads(await client.recv()))
                await client.send('{"id": 2, "method": "exit"}')
                seen += await read_all(client)

    await both(program)


async def test_a_remote_shell() -> None:
    async def program(library: Any, seen: Observations) -> None:
        ServerConnection = library.asyncio.server.ServerConnection  # noqa: N806

        class Shell:
            def __init__(self, websocket: Any) -> None:
                assert isinstance(websocket, ServerConnection)
                self.websocket = websocket

            async def run(self) -> None:
                process = await asyncio.create_subprocess_exec(
                    "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
                reading = asyncio.ensure_future(self.forward(process))
                try:
                    async for message in self.websocket:
                        process.stdin.write(message if isinstance(message, bytes) else message.encode())  # type: ignore[union-attr]
                except library.exceptions.ConnectionClosed:
                    seen.append("closed")
                finally:
                    process.stdin.close()  # type: ignore[union-attr]
                    seen.append(await process.wait())
                    await reading

            async def forward(self, process: Any) -> None:
                while data := await process.stdout.read(1024):
                    try:
                        await self.websocket.send(data)
                    except library.exceptions.ConnectionClosed:
                        break

        serving = library.serve(lambda ws: Shell(ws).run(), "localhost", 0, ping_timeout=5)
        async with serving as server, at(server) as client:
            await client.send(b"echo ")
            seen.append(await client.recv())
            await client.send("text\n")
            seen.append(await client.recv())

    await both(program)


async def test_a_json_rpc_session() -> None:
    async def program(library: Any, seen: Observations) -> None:
        ended: list[str] = []

        class Transport:
            def __init__(self, websocket: Any) -> None:
                self.websocket = websocket
                self.closed = asyncio.Event()

            def remote_address(self) -> Any:
                return self.websocket.remote_address[:2]

            async def process(self) -> None:
                try:
                    while True:
                        message = await self.websocket.recv()
                        if not isinstance(message, bytes):
                            message = message.encode()
                        await self.write(message.upper())
                except library.exceptions.ConnectionClosed as exc:
                    ended.append(type(exc).__name__)
                finally:
                    self.closed.set()

            async def write(self, message: bytes) -> None:
                await self.websocket.send(message)

        async def handle(websocket: Any) -> None:
            transport = Transport(websocket)
            seen.append(transport.remote_address()[0])
            await transport.process()

        async with library.serve(handle, "127.0.0.1", 0, max_size=1000) as server:
            client = await at(server)
            await client.send("ping")
            seen.append(await client.recv())
            await client.send(b"x" * 1001)
            await client.wait_closed()
            seen.append(client.close_code)
        seen += ended

    assert (await both(program))[-2:] == [1009, "ConnectionClosedError"]


async def test_subscriptions_of_graphql() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def cookies(connection: Any, request: Any, response: Any) -> Any:
            response.headers["dummy"] = "test1234"
            return response

        async def subscriptions(websocket: Any) -> None:
            if websocket.subprotocol != "graphql-transport-ws":
                await websocket.close(4406, "Subprotocol not acceptable")
                return
            async for message in websocket:
                event = json.loads(message)
                if event["type"] == "connection_init":
                    if event.get("payload") != "secret":
                        await websocket.close(code=4403, reason="Forbidden")
                        return
                    await websocket.send('{"type": "connection_ack"}')
                elif event["type"] == "subscribe":
                    for number in range(3):
                        await websocket.send(json.dumps({"id": event["id"], "type": "next", "payload": number}))
                    await websocket.send(json.dumps({"id": event["id"], "type": "complete"}))

        options = {"subprotocols": ["graphql-transport-ws", "graphql-ws"], "process_response": cookies}
        async with running(library, subscriptions, **options) as server:
            for protocol, payload in (
                ("graphql-transport-ws", "secret"),
                ("graphql-transport-ws", "no"),
                ("graphql-ws", ""),
            ):
                async with at(server, subprotocols=[protocol]) as client:
                    assert client.response is not None
                    seen.append(client.response.headers["dummy"])
                    try:
                        await client.send(json.dumps({"type": "connection_init", "payload": payload}))
                        seen.append(await client.recv())
                        await client.send('{"type": "subscribe", "id": "1"}')
                        seen += [await client.recv() for _ in range(4)]
                    except Exception as exc:
                        seen.append(str(exc))
            seen.append(await refused(server, subprotocols=["other"]))

    await both(program)


# --- feeds, brokers, files ------------------------------------------------------------------------


async def test_a_feed_with_a_header_and_a_payload() -> None:
    async def program(library: Any, seen: Observations) -> None:
        clients: set[Any] = set()

        async def feed(websocket: Any) -> None:
            await websocket.send(json.dumps({"op": "serverInfo", "name": "robot"}))
            clients.add(websocket)
            try:
                async for message in websocket:
                    if isinstance(message, str):
                        await websocket.send(message)
            except library.exceptions.ConnectionClosed as exc:
                seen.append((exc.rcvd.code, exc.rcvd.reason))
            finally:
                clients.discard(websocket)

        async def publish(payload: bytes) -> None:
            header = struct.pack("<BIQ", 1, 7, 1234)
            await asyncio.gather(*(client.send([header, payload]) for client in clients))

        options = {"max_size": None, "subprotocols": ["foxglove.websocket.v1"]}
        async with library.serve(feed, "127.0.0.1", None, **options) as server:
            client = await at(server, subprotocols=["foxglove.websocket.v1"])
            seen.append(await client.recv())
            await until(lambda: clients)
            await publish(b"x" * 300_000)
            seen.append(len(await client.recv()))
            await client.send("subscribe")
            seen.append(await client.recv())
            await client.close(1001, "over")
            await until(lambda: not clients)

    await both(program)


async def test_a_broker_that_reads_a_stream_of_bytes() -> None:
    async def program(library: Any, seen: Observations) -> None:
        class Reader:
            def __init__(self, websocket: Any) -> None:
                self.websocket, self.stream = websocket, asyncio.StreamReader()

            async def read(self, size: int) -> bytes:
                while len(self.stream._buffer) < size:  # type: ignore[attr-defined]
                    message = await self.websocket.recv()
                    if not isinstance(message, bytes):
                        raise TypeError("message must be bytes")
                    self.stream.feed_data(message)
                return await self.stream.readexactly(size)

        async def broker(websocket: Any) -> None:
            reader = Reader(websocket)
            ssl_object = websocket.transport.get_extra_info("ssl_object")
            seen.append((ssl_object is None, websocket.subprotocol, websocket.remote_address[0]))
            try:
                kind, size = await reader.read(2)
                payload = await reader.read(size)
                await websocket.send(bytes([kind, len(payload)]) + payload)
                await reader.read(1)
            except library.exceptions.ConnectionClosed:
                seen.append("closed")

        options = {"subprotocols": [library.Subprotocol("mqtt")], "max_queue": None}
        async with running(library, broker, **options) as server:
            async with at(server, subprotocols=["mqtt"]) as client:
                await client.send(b"\x10")
                await client.send(b"\x05he")
                await client.send(b"llo")
                seen.append(await client.recv())
            seen.append(await refused(server))

    await both(program)


async def test_files_and_websockets_on_one_port() -> None:
    async def program(library: Any, seen: Observations) -> None:
        files = {"/": b"<html></html>", "/viewer.js": b"let viewer;"}

        async def viewer_http(connection: Any, request: Any) -> Any:
            if request.headers.get("Upgrade") == "websocket":
                return None
            path = request.path.partition("?")[0]
            if path not in files:
                return library.http11.Response(404, "NOT FOUND", library.datastructures.Headers())
            kind = "text/html" if path == "/" else "text/javascript"
            headers = library.datastructures.Headers(
                **{"Content-Type": kind, "Connection": "close", "Content-Length": str(len(files[path]))}
            )
            return library.http11.Response(200, "OK", headers, files[path])

        async def ws_handler(websocket: Any) -> None:
            seen.append(websocket.logger.logger.name)
            async for message in websocket:
                await websocket.send(message)

        serving = library.asyncio.server.serve(
            ws_handler,
            host="127.0.0.1",
            port=0,
            max_size=None,
            compression=None,
            process_request=viewer_http,
            logger=logging.getLogger("viewer"),
        )
        server = await serving
        port = server.server.sockets[0].getsockname()[1]
        for path in ("/", "/viewer.js?v=1", "/none"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            seen += [head.splitlines()[0], body]
            writer.close()
        async with at(server, max_size=None) as client:
            await client.send(b"x" * 2_000_000)
            seen.append(len(await client.recv()))
        server.close()
        await server.wait_closed()

    await both(program)


# --- robots, documents, speech --------------------------------------------------------------------


async def test_a_policy_server_that_tells_its_failure() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def health_check(connection: Any, request: Any) -> Any:
            return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None

        async def handler(websocket: Any) -> None:
            await websocket.send(json.dumps({"policy": "pi"}))
            while True:
                try:
                    observation = json.loads(await websocket.recv())
                    await websocket.send(json.dumps({"actions": 10 / observation["divisor"]}))
                except library.ConnectionClosed:
                    seen.append("disconnected")
                    break
                except Exception as exc:
                    await websocket.send(repr(exc))
                    await websocket.close(code=library.frames.CloseCode.INTERNAL_ERROR, reason="Internal server error.")
                    raise

        options: Any = {"compression": None, "max_size": None, "process_request": health_check}
        async with library.asyncio.server.serve(handler, "0.0.0.0", 0, **options) as server:
            async with at(server) as client:
                await client.recv()
                await client.send('{"divisor": 5}')
                seen.append(await client.recv())
            seen.append(await refused(server, "/healthz"))
            client = await at(server)
            await client.recv()
            await client.send('{"divisor": 0}')
            seen.append(await client.recv())
            await client.wait_closed()
            seen.append((client.close_code, client.close_reason))

    await both(program)


async def test_a_document_room_that_sets_the_path() -> None:
    async def program(library: Any, seen: Observations) -> None:
        class Provider:
            def __init__(self) -> None:
                self.rooms: dict[str, list[Any]] = {}

            async def serve(self, websocket: Any) -> None:
                clients = self.rooms.setdefault(websocket.path, [])
                clients.append(websocket)
                try:
                    async for message in websocket:
                        for client in clients:
                            if client != websocket:
                                await client.send(message)
                finally:
                    clients.remove(websocket)

        provider = Provider()

        async def handler(websocket: Any) -> None:
            websocket.path = websocket.request.path.rpartition("/")[2]
            await provider.serve(websocket)

        serving = library.serve(handler, "localhost", 0)
        async with serving as server, at(server, "/docs/one") as ada, at(server, "/docs/one") as bob:
            await until(lambda: len(provider.rooms.get("one", [])) == 2)
            await ada.send(b"update")
            seen.append(await bob.recv())
        seen.append(sorted(provider.rooms))

    await both(program)


async def test_speech_recognition_with_state_on_the_connection() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def recognize(websocket: Any) -> None:
            websocket.status_dict_asr = {"cache": {}, "is_final": False}
            websocket.frames = []
            websocket.chunk_interval = 10
            websocket.mode = "2pass"
            websocket.is_speaking = True
            try:
                async for message in websocket:
                    if isinstance(message, str):
                        settings = json.loads(message)
                        websocket.is_speaking = settings.get("is_speaking", websocket.is_speaking)
                        websocket.mode = settings.get("mode", websocket.mode)
                        websocket.status_dict_asr["is_final"] = not websocket.is_speaking
                    else:
                        websocket.frames.append(message)
                    if websocket.status_dict_asr["is_final"]:
                        await websocket.send(
                            json.dumps({"mode": websocket.mode, "text": len(b"".join(websocket.frames))})
                        )
                        websocket.frames.clear()
                        websocket.status_dict_asr["is_final"] = False
            except library.ConnectionClosed:
                seen.append("closed")
            except library.exceptions.InvalidState:
                seen.append("invalid")

        serving = library.serve(recognize, "localhost", 0, subprotocols=["binary"], ping_interval=None)
        async with serving as server, at(server, subprotocols=["binary"]) as client:
            await client.send('{"mode": "online"}')
            for _ in range(5):
                await client.send(b"x" * 960)
            await client.send('{"is_speaking": false}')
            seen.append(json.loads(await client.recv()))

    await both(program)


async def test_speech_recognition_in_a_thread() -> None:
    async def program(library: Any, seen: Observations) -> None:
        def process_chunk(message: Any) -> tuple[str, bool]:
            if message == '{"eof" : 1}':
                return '{"text": "end"}', True
            return json.dumps({"partial": len(message)}), False

        async def recognize(websocket: Any) -> None:
            loop = asyncio.get_running_loop()
            seen.append(websocket.remote_address[0])
            while True:
                message = await websocket.recv()
                response, stop = await loop.run_in_executor(None, process_chunk, message)
                await websocket.send(response)
                if stop:
                    break

        async with running(library, recognize) as server, at(server) as client:
            await client.send(b"x" * 8000)
            seen.append(await client.recv())
            await client.send('{"eof" : 1}')
            seen += await read_all(client)

    await both(program)


async def test_devices_that_are_told_by_headers_or_query() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def handle(websocket: Any) -> None:
            headers = dict(websocket.request.headers)
            if headers.get("device-id") is None:
                query = urllib.parse.parse_qs(urllib.parse.urlparse(websocket.request.path).query)
                if "device-id" not in query:
                    await websocket.send("no device")
                    await websocket.close()
                    return
                websocket.request.headers["device-id"] = query["device-id"][0]
                headers = dict(websocket.request.headers)
            await websocket.send(f"hello {headers['device-id']}")

        async def http_response(websocket: Any, headers: Any) -> Any:
            if headers.headers.get("connection", "").lower() == "upgrade":
                return None
            return websocket.respond(200, "Server is running\n")

        async with running(library, handle, process_request=http_response) as server:
            async with at(server, additional_headers={"Device-Id": "aa:bb"}) as client:
                seen.append(await client.recv())
            async with at(server, "/xiao/v1/?device-id=cc:dd") as client:
                seen.append(await client.recv())
            async with at(server, "/xiao/v1/") as client:
                seen += await read_all(client)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            seen.append((await reader.read()).endswith(b"Server is running\n"))
            writer.close()

    assert (await both(program))[:3] == ["hello aa:bb", "hello cc:dd", "no device"]


async def test_a_chat_bot_with_tasks_for_both_directions() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def handler(websocket: Any) -> None:
            queue: asyncio.Queue[Any] = asyncio.Queue()

            async def consume() -> None:
                async for message in websocket:
                    await queue.put(message)

            async def produce() -> None:
                while True:
                    await websocket.send((await queue.get())[::-1])

            consumer, producer = asyncio.ensure_future(consume()), asyncio.ensure_future(produce())
            _, pending = await asyncio.wait([consumer, producer], return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            seen.append("done")

        async with running(library, handler) as server, at(server) as client:
            for message in ("abc", b"\x01\x02"):
                await client.send(message)
                seen.append(await client.recv())

    assert await both(program) == ["cba", b"\x02\x01", "done"]


async def test_a_proxy_between_a_client_and_a_server() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def upstream(websocket: Any) -> None:
            async for message in websocket:
                await websocket.send(message)
                if message == "stop":
                    await websocket.close(4002, "stopped")

        async def pump(source: Any, target: Any, closed: Any) -> None:
            try:
                async for message in source:
                    await target.send(message)
                await target.close()
            except closed as exc:
                await target.close(exc.rcvd.code, exc.rcvd.reason)

        async with running(library, upstream) as behind:

            async def handler(websocket: Any) -> None:
                async with at(behind) as client:
                    from websockets.exceptions import ConnectionClosed

                    closed = (ConnectionClosed, library.exceptions.ConnectionClosed)
                    await asyncio.gather(pump(websocket, client, closed), pump(client, websocket, closed))

            async with running(library, handler) as server:
                client = await at(server)
                for message in ("one", b"two", "stop"):
                    await client.send(message)
                    seen.append(await client.recv())
                await client.wait_closed()
                seen.append((client.close_code, client.close_reason))

    assert (await both(program))[-1] == (4002, "stopped")


def test_a_server_that_is_started_by_run_until_complete() -> None:
    from plumews.compat import websockets as ours

    async def echo(websocket: Any) -> None:
        async for message in websocket:
            await websocket.send(message)

    loop = asyncio.new_event_loop()
    try:
        server = loop.run_until_complete(ours.serve(echo, "127.0.0.1", 0).__aenter__())
        assert server.is_serving()
        server.close()
        loop.run_until_complete(server.wait_closed())
    finally:
        loop.close()
