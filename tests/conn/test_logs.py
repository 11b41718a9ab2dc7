"""Log lines: fields of the connection, printable ASCII, no secrets, and a bounded rate."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from pathlib import Path

import jwt
import pytest

import plumews
from plumews import limits
from plumews.conn import logs as logs_module
from plumews.conn.logs import LineLimit, log_extra, request_line
from support.fakes import fake_conn, until
from support.raw_client import Wire, close, text, upgrade

SECRET = b"s3cret" * 8
TOKEN = jwt.encode({"sub": "ad\u00e1", "exp": 4102444800}, SECRET)
PASSWORD = "open-sesame-7391"

logger = logging.getLogger("plumews.server")


@pytest.fixture
def logs(caplog):
    """Return the records of plumews, from DEBUG on."""
    caplog.set_level(logging.DEBUG, logger="plumews")
    return lambda: [record for record in caplog.records if record.name.startswith("plumews")]


def shown(record):
    """Return the text that a handler writes for ``record``."""
    return logging.Formatter("%(levelname)s %(message)s").format(record)


def auth():
    auth = plumews.SimpleRoomAuth(SECRET, rounds=1)
    auth.set_room_password("vault", PASSWORD)
    return auth


def busiest_second(records):
    times = [record.created for record in records]
    return max(sum(start <= time < start + 1 for time in times) for start in times)


# --- fields of the connection ---------------------------------------------------------------------


async def test_line_has_fields_of_its_connection_also_in_its_text(start, logs):
    def on_message(conn, message):
        raise RuntimeError("broken")

    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0, on_message=on_message))
    async with await Wire.open(server, "/ws?room=blue%20room", f"Authorization: Bearer {TOKEN}") as wire:
        host, port = wire.writer.get_extra_info("sockname")
        (conn,) = server.connections
        wire.send(text("x"))
        assert (await wire.closing())[0] == 1011
    (record,) = [record for record in logs() if record.levelname == "ERROR"]
    assert record.connection == str(conn.id)
    assert (record.client, record.room, record.user) == (f"{host}:{port}", "blue room", "ad\\xe1")
    assert record.getMessage() == (
        f"a callback failed [connection={conn.id} client={host}:{port} room='blue room' user='ad\\xe1']"
    )
    assert isinstance(record.exc_info[1], RuntimeError)
    assert "RuntimeError: broken" in shown(record)


async def test_line_about_no_connection_has_empty_fields(logs):
    logger.warning("stopping took longer than %g s", 2.5)
    (record,) = logs()
    assert record.getMessage() == "stopping took longer than 2.5 s"
    fields = (record.connection, record.client, record.server, record.room, record.user)
    assert fields == ("-", "-", "-", "-", "-")


async def test_refusal_line_has_status_code_and_request_line(start, logs):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0, require_token=True))
    async with await Wire.connect(server) as wire:
        status, _ = await wire.response(upgrade("/ws?room=vault"))
    (record,) = logs()
    assert (status, record.levelname, record.room) == (401, "INFO", "vault")
    assert record.getMessage().startswith("refused 401 WEBSOCKET_TOKEN_REQUIRED: GET /ws [connection=")


async def test_refusal_by_close_code_is_logged_like_one_by_status(start, logs):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    async with await Wire.open(server, "/ws?room=vault&auth=message") as wire:
        wire.send(text(json.dumps({"type": "auth", "password": "wrong"})))
        assert (await wire.closing())[0] == 4403
    refused = [record.getMessage() for record in logs() if record.levelname == "INFO"]
    assert len(refused) == 1
    assert refused[0].startswith("refused by close code 4403 WEBSOCKET_ROOM_FORBIDDEN [connection=")


async def test_row_20_non_ascii_bytes_are_escaped(start, logs):
    async def handler(conn):
        raise RuntimeError(conn.request.headers["User-Agent"])

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    agent = "MOB\u0130LE \u2028\x85".encode().decode("latin-1")
    async with await Wire.open(server, "/", f"User-Agent: {agent}") as wire:
        assert (await wire.closing())[0] == 1011
    (record,) = [record for record in logs() if record.levelname == "ERROR"]
    assert shown(record).replace("\n", "").isascii()
    assert "RuntimeError: MOB\\xc4\\xb0LE \\xe2" in shown(record)


async def test_opening_and_closing_are_logged_at_debug(start, logs):
    server = await start(plumews.serve(host="127.0.0.1", port=0, on_message=lambda conn, message: None))
    async with await Wire.open(server, "/chat?x=1") as wire:
        wire.send(close(1000))
        await wire.eof()
    await until(lambda: len(logs()) == 2)
    opened, closed = logs()
    assert (opened.levelname, closed.levelname) == ("DEBUG", "DEBUG")
    assert opened.getMessage().startswith("opened: GET /chat [")
    assert closed.getMessage().startswith("closed with 1000 [")
    assert opened.connection == closed.connection


async def test_request_line_before_the_request_is_parsed_says_so():
    assert request_line(fake_conn()[0]) == "no request"


async def test_record_keeps_no_reference_to_connection_or_secret(caplog):
    conn, _ = fake_conn()
    logger.error("about one", extra=log_extra(conn, secrets=["s3cret"]))
    (record,) = caplog.records
    assert record.connection == str(conn.id)
    assert not any(isinstance(value, plumews.Conn) for value in vars(record).values())
    assert "s3cret" not in repr(vars(record))


# --- escaping -------------------------------------------------------------------------------------


async def test_row_20_cve_2020_7694_path_is_escaped_without_query(start, logs):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    tail = "%1b[2J%0aERROR%20plumews.server%20FAKE?room=%1b[2J%0aFAKE&x=query"
    for path in ("/nowhere", "/ws"):
        async with await Wire.connect(server) as wire:
            await wire.response(upgrade(path + tail))
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/ws?room=%1b[2J%0aFAKE&x=query"))
    assert len(logs()) == 3
    for record in logs():
        line = shown(record)
        assert line.isascii()
        assert line.isprintable()
        assert "query" not in line
        assert "ERROR plumews" not in line


async def test_exception_text_cannot_forge_an_entry(start, logs):
    def on_message(conn, message):
        raise ValueError(f"cannot read {message}")

    server = await start(plumews.serve(host="127.0.0.1", port=0, on_message=on_message))
    async with await Wire.open(server) as wire:
        wire.send(text("gr\u00fcn\x1b[2J\r\nERROR plumews.server FAKE"))
        assert (await wire.closing())[0] == 1011
    (record,) = [record for record in logs() if record.levelname == "ERROR"]
    first, *others = re.split(r"[\r\n]", shown(record))
    assert first.startswith("ERROR a callback failed")
    assert all(line.startswith("  ") for line in others)
    assert all(line.isascii() and line.isprintable() for line in (first, *others))
    assert "gr\\xfcn [2J" in shown(record)


async def test_long_text_is_truncated(logs):
    logger.warning("%s", "x" * 100_000)
    assert len(logs()[0].getMessage()) == limits.LOG_LINE


# --- secrets --------------------------------------------------------------------------------------

WAYS = {
    "header": ("/ws?room=vault", [f"Authorization: Bearer {TOKEN}", f"X-WebSocket-Room-Password: {PASSWORD}"]),
    "subprotocol": ("/ws?room=vault", [f"Sec-WebSocket-Protocol: plumews, bearer.{TOKEN}"]),
    "query": (f"/ws?room=vault&token={TOKEN}&room_password={PASSWORD}", []),
    "cookie": ("/ws?room=vault", [f"Cookie: session={TOKEN}"]),
    "message": ("/ws?room=vault&auth=message", []),
}


@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
@pytest.mark.parametrize("way", WAYS)
async def test_row_20_no_line_has_the_token_wherever_it_was_sent(start, logs, caplog, way, right):
    caplog.set_level(logging.DEBUG)
    path, lines = WAYS[way]
    token = TOKEN if right else TOKEN[:-9] + "forged-it"
    path, lines = path.replace(TOKEN, token), [line.replace(TOKEN, token) for line in lines]
    if way in ("subprotocol", "cookie"):
        lines.append(f"X-WebSocket-Room-Password: {PASSWORD}")

    def on_message(conn, message):
        raise RuntimeError(f"broken for {dict(conn.request.headers)} {conn.request.query} {conn.user_info}")

    server = await start(
        plumews.serve_rooms(
            plumews.Hub(), auth(), "127.0.0.1", 0, on_message=on_message, allow_query_secrets=True, page=False
        )
    )
    async with await Wire.connect(server) as wire:
        message = text(json.dumps({"type": "auth", "token": token, "password": PASSWORD})) if way == "message" else b""
        wire.writer.write(upgrade(path, *lines) + message + text("x") + close())
        await wire.reader.read()
    await until(lambda: not server.connections)
    assert logs(), "refused, or failed"
    for record in caplog.records:
        line = shown(record)
        assert not any(part in line for part in (PASSWORD, token, *token.split("."))), line


async def test_handlers_get_no_exception_whose_text_has_a_secret(start, logs):
    def process_request(conn, request):
        raise KeyError(request.headers["Authorization"])

    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_message=lambda conn, message: None, process_request=process_request)
    )
    async with await Wire.connect(server) as wire:
        assert (await wire.response(upgrade("/", f"Authorization: Bearer {TOKEN}")))[0] == 500
    (record,) = [record for record in logs() if record.levelname == "ERROR"]
    assert record.exc_info is None
    assert "process_request" in shown(record), "the lines of code are there"
    assert "KeyError (its text is left out" in shown(record)


# --- rate -----------------------------------------------------------------------------------------


async def bad_client(address, request):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    await reader.read()
    writer.close()


async def test_row_20_cve_2025_47287_2000_bad_clients_log_few_lines(start, logs):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    requests = [b"\x16\x03\x01\r\n\r\n", upgrade("/nowhere"), upgrade("/ws", "Origin: http://evil.com")]
    for _ in range(20):
        await asyncio.gather(*(bad_client(address, requests[number % 3]) for number in range(100)))
    # A line of its own kind is seen through the flood, though it is no warning.
    await bad_client(address, upgrade("/ws?room=vault"))

    def counted():
        lines = [record.getMessage().partition(" lines left out") for record in logs()]
        return sum(int(before) if found else 1 for before, found, _ in lines)

    await until(lambda: counted() == 2001)  # the last of them may be counted a second later
    records = logs()
    assert busiest_second(records) <= limits.LOG_LINES
    assert any("WEBSOCKET_ROOM_FORBIDDEN" in record.getMessage() for record in records)
    told = [record.getMessage() for record in records if "lines left out" in record.getMessage()]
    assert "of 'refused WEBSOCKET_FORBIDDEN_ORIGIN'" in told[0]


async def test_repeated_failures_are_bounded_and_hide_no_other_failure(logs):
    conn, _ = fake_conn()
    for number in range(1000):
        try:
            raise (LookupError if number == 999 else ValueError)(str(number))
        except Exception:
            logger.exception("the handler failed", extra=log_extra(conn))
    assert [record.exc_info[0] for record in logs()] == [ValueError] * limits.LOG_REPEATED + [LookupError]


async def test_lines_below_the_level_are_not_counted(caplog):
    caplog.set_level(logging.INFO, logger="plumews.server")
    for _ in range(1000):
        logger.debug("closed")
    logger.info("refused")
    assert [record.getMessage() for record in caplog.records] == ["refused"]


def test_lines_outside_of_a_loop_are_all_logged(caplog):
    for _ in range(20):
        logger.warning("again and again")
    assert len(caplog.records) == 20


async def test_summary_waits_for_a_second_with_space(logs, monkeypatch):
    monkeypatch.setattr(logs_module, "_LOG_SUMMARY_EVERY", 0.01)
    monkeypatch.setattr(limits, "LOG_LINES", 7)
    for number in range(10):
        logger.warning("warning %d" % number)  # noqa: UP031 - a kind of its own
    monkeypatch.setattr(limits, "LOG_LINES", 6)
    attempts, take = [], logs_module.LineLimit.take_left_out
    monkeypatch.setattr(
        logs_module.LineLimit, "take_left_out", lambda limit, now: attempts.append(take(limit, now)) or attempts[-1]
    )
    logger.warning("again")
    await until(lambda: len(attempts) == 3)
    assert attempts == [{}, {}, {}]
    assert len(logs()) == 6
    monkeypatch.setattr(limits, "LOG_LINES", 10)
    await until(lambda: len(logs()) == 7)
    assert logs()[-1].getMessage().startswith("5 lines left out: ")


# --- the limit of one loop ------------------------------------------------------------------------


def test_flood_of_one_kind_is_three_lines_a_second():
    limit = LineLimit()
    logged = [now / 1000 for now in range(10_000) if limit.admit("bad", now / 1000)]
    assert len(logged) == 10 * limits.LOG_REPEATED


def test_flood_of_one_kind_hides_no_first_line_of_another():
    limit = LineLimit()
    for _ in range(1000):
        limit.admit("bad", 0.0)
    assert limit.admit("other", 0.1)
    assert limit.admit("third", 0.1)
    assert not limit.admit("other", 0.2)


def test_lines_that_are_not_urgent_leave_space_for_warnings():
    limit = LineLimit()
    logged = sum(limit.admit(f"kind {number}", 0.0) for number in range(1000))
    assert logged == logs_module._LOG_CALM
    assert limit.admit("broken", 0.5, urgent=True)


def test_no_second_has_more_lines_than_the_bound():
    chance, limit, lines, now, told = random.Random(7), LineLimit(), [], 0.0, 0.0
    for _ in range(20_000):
        now += chance.expovariate(2000)
        if limit.admit(f"kind {chance.randrange(40)}", now, urgent=chance.random() < 0.5):
            lines.append(now)
        if now - told >= logs_module._LOG_SUMMARY_EVERY and limit.take_left_out(now):
            lines.append(now)
            told = now
    assert len(lines) > 50
    busiest = max(sum(start <= time < start + 1 for time in lines) for start in lines)
    assert busiest == limits.LOG_LINES


def test_left_out_lines_are_counted_by_kind_once():
    limit = LineLimit()
    for kind in ("bad", "bad", "bad", "bad", "bad", "worse"):
        limit.admit(kind, 0.0)
    assert limit.take_left_out(1.0) == {"bad": 2}
    assert limit.take_left_out(2.0) == {}


def test_summary_counts_as_a_line():
    limit = LineLimit()
    logged = sum(limit.admit(f"kind {number}", 0.0, urgent=True) for number in range(100))
    assert limit.take_left_out(0.5) != {}
    limit.admit("more", 0.6, urgent=True)
    assert limit.take_left_out(0.7) == {}, "the second is full"
    assert limit.take_left_out(1.6) == {"more": 1}
    assert logged + 1 == limits.LOG_LINES


def test_kinds_of_lines_are_bounded():
    limit = LineLimit()
    for number in range(100_000):
        limit.admit(f"kind {number}", number / 100_000)
    assert len(limit._lines) <= limits.LOG_LINES
    counts = limit.take_left_out(1.5)
    assert len(counts) <= limits.COUNTED_NAMES + 1
    assert sum(counts.values()) > 99_000


# --- the loggers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plumews.server", "plumews.client", "plumews.hub", "plumews.auth", "plumews.conn"])
async def test_every_logger_of_plumews_has_the_filter(name, caplog):
    logging.getLogger(name).warning("gr\u00fcn")
    assert caplog.records[0].getMessage() == "gr\\xfcn"


async def test_logger_of_a_connection_adds_fields_and_is_not_bounded(caplog):
    caplog.set_level(logging.INFO, logger="plumews.conn")
    conn, _ = fake_conn()
    conn.metadata["room"] = "chat"
    conn.user_info = plumews.UserInfo("42", "Ada")
    for number in range(100):
        conn.logger.info("said %s", number, extra={"kind": "order", "connection": "mine"})
    assert len(caplog.records) == 100
    record = caplog.records[7]
    told = (record.connection, record.client, record.room, record.user, record.kind)
    assert told == (str(conn.id), "192.0.2.1:4711", "chat", "42", "order")
    assert record.getMessage().startswith(f"said 7 [connection={conn.id} client=192.0.2.1:4711 room=chat user=42]")
    try:
        raise ValueError("told")
    except ValueError:
        conn.logger.exception("failed\nERROR forged")
    assert caplog.records[-1].exc_info
    assert caplog.records[-1].getMessage().startswith("failed ERROR forged [connection=")
    conn.abort()


def test_modules_use_no_other_logger():
    from plumews.conn.logs import LOGGERS

    used = {
        found
        for path in Path(plumews.__file__).parent.rglob("*.py")
        for found in re.findall(r'getLogger\("([^"]+)"\)', path.read_text())
    }
    # Programs take our classes in place of these.
    of_others = {"uvicorn.error", "websockets.client", "websockets.server"}
    assert used - of_others == set(LOGGERS)
