"""Attacks on the opening handshake that have broken other servers, over real sockets.

The rows are those of the table that the project keeps of such cases; each id has the number of its row and one CVE, or
the short name, of somebody to whom it happened. While a case runs the echo of another connection goes on, and memory
stays flat.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import pytest

import plumews
from plumews import limits
from plumews.conn import closing
from support.fakes import PATIENCE, echo, until
from support.raw_client import KEY, Wire, close, instead, masked, text, upgrade

#: Of another connection's echo while the case goes on.
ECHO = 0.05

#: What a case may leave in memory, the parts of the tests among it.
GROWTH = 8 << 20


def resident():
    """Bytes of memory that this process has; 0 where nobody tells."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextlib.asynccontextmanager
async def unharmed(server):
    """Check that another connection's echo takes less than 50 ms meanwhile, and that memory stays flat."""
    took = []
    async with await Wire.open(server) as wire:

        async def talk():
            while True:
                begun = time.perf_counter()
                wire.send(text("alive"))
                assert await wire.message() == "alive"
                took.append(time.perf_counter() - begun)
                await asyncio.sleep(0.001)  # who talks without a pause is a load of its own

        talking = asyncio.create_task(talk())
        before = resident()
        yield
        enough = len(took) + 3
        await until(lambda: len(took) >= enough or talking.done())
        assert resident() - before < GROWTH
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking
    assert statistics.median(took) < ECHO


@pytest.fixture
async def server(start):
    return await start(plumews.serve(echo, "127.0.0.1", 0))


async def answer(server, request):
    """Status and error of the answer; the server has ended the connection behind it."""
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(request)
        return status, json.loads(body)["error"], wire


async def status_of(server, request):
    async with await Wire.connect(server) as wire:
        wire.writer.write(request)
        await wire.read_head()
        return wire.status


# --- row 12: heads without an end -----------------------------------------------------------------

FLOODS = {
    "cve_2024_37890_ten_thousand_headers": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: 1\r\n"),
    "cve_2026_54465_one_line_of_10_MB": (b"GET / HTTP/1.1\r\nX: ", b"x"),
    "no_line_end_at_all": (b"", b"G"),
    "a_target_without_an_end": (b"GET /", b"x"),
}


@pytest.mark.parametrize(("head", "more"), FLOODS.values(), ids=FLOODS.keys())
async def test_row_12_flood_is_rejected_within_32_kib(server, head, more, monkeypatch):
    monkeypatch.setattr(closing, "_FIN_WAIT", PATIENCE)  # or what is left is met by a reset on a busy machine
    chunk = more * (16_384 // len(more))
    async with unharmed(server), await Wire.connect(server) as wire:
        wire.writer.write(head + chunk + chunk[: 16_000 - len(head)])  # less than 32 KiB: that has to be enough
        await wire.read_head()
        assert wire.status in (400, 431)
        with contextlib.suppress(ConnectionError):  # and nothing that comes behind it is kept
            for _ in range(10_000_000 // len(chunk)):
                wire.writer.write(chunk)
                await wire.writer.drain()


async def test_row_12_a_hundred_headers_and_one_more_are_431(server):
    request = upgrade("/", *[f"X-{number}: 1" for number in range(96)])
    status, refused, _ = await answer(server, request)
    assert (status, refused["code"], refused["message"]) == (
        431,
        "WEBSOCKET_HEAD_TOO_LARGE",
        "too many headers: more than 100",
    )


# --- row 13: heads byte by byte (what they cost is measured in test_http11) -----------------------


async def test_row_13_cve_2023_43669_largest_head_byte_by_byte(server):
    padding = "x" * (limits.HEAD_SIZE - len(upgrade("/", "X: ")))
    head = upgrade("/", f"X: {padding}")
    assert len(head) == limits.HEAD_SIZE
    async with unharmed(server), await Wire.connect(server) as wire:
        for position in range(len(head)):
            wire.writer.write(head[position : position + 1])
            await asyncio.sleep(0)  # so that it goes alone
        await wire.read_head()
        assert wire.status == 101
        wire.send(text("in"))
        assert await wire.message() == "in"


# --- row 14: extensions that keep a parser busy ---------------------------------------------------

EXTENSIONS = {
    "cve_2020_7662_escapes": lambda n: 'a;b="' + "\\c" * (n // 2),
    "cve_2020_7663_closed_escapes": lambda n: 'a;b="' + "\\c" * (n // 2) + '"',
    "cve_2021_32640_blanks": lambda n: "b" + " " * n + "x",
    "commas": lambda n: "," * n,
    "semicolons": lambda n: "a" + ";" * n,
    "offers": lambda n: "permessage-deflate," * (n // 19),
    "constructor": lambda n: "permessage-deflate; constructor" + "; constructor=1" * (n // 16),
    "class": lambda n: "permessage-deflate; __class__=x, __proto__; __class__" + "; toString" * (n // 10),
}


@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}], ids=["plain", "deflate"])
@pytest.mark.parametrize("make", EXTENSIONS.values(), ids=EXTENSIONS.keys())
async def test_row_14_extension_headers_are_read_in_linear_time(start, make, options):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, **options))

    async def cost(size):
        request = upgrade("/", f"Sec-WebSocket-Extensions: {make(size)}")
        begun = time.process_time()
        assert await status_of(server, request) in (101, 400)
        return time.process_time() - begun

    async with unharmed(server):
        short = long = float("inf")
        for _ in range(40):  # the machine is not ours alone: the best of several
            short, long = min(short, await cost(7_500)), min(long, await cost(15_000))
            if long <= 2.2 * short:
                break
        assert long <= 2.2 * short


# --- row 15: any byte -----------------------------------------------------------------------------

NAMES = [
    "Host",
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Origin",
    "Authorization",
    "Cookie",
    "Content-Length",
    "Transfer-Encoding",
    "Forwarded",
    "X-Forwarded-For",
    "User-Agent",
    "X-Any",
]
HARMLESS = ("Authorization", "Cookie", "User-Agent", "X-Any")
#: By what stands in these nothing is decided.
OPAQUE = ("Cookie", "User-Agent", "X-Any")
#: What may and what may not stand in a value, at each border. Every byte is read in test_http11, and asked in one name.
BORDERS = b'\x00\x08\t\n\x0b\x0c\r\x0e\x1c\x1f !,;="~\x7f\x80\x85\xa0\xff'


@pytest.mark.parametrize("name", NAMES)
async def test_row_15_cve_2026_42544_any_byte_in_a_header(start, name):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, origins=["*"], trusted_proxies=["127.0.0.1"]))
    line = next((line for line in upgrade().split(b"\r\n") if line.startswith(name.encode() + b":")), None)

    async def ask(byte):
        value = name.encode() + b": a" + bytes([byte]) + b"b"
        request = upgrade() if line else upgrade("/", f"{name}: a?b")
        return await status_of(server, request.replace(line or f"{name}: a?b".encode(), value))

    async with unharmed(server):
        sent = range(256) if name == "X-Any" else BORDERS
        for first in range(0, len(sent), 32):
            answers = await asyncio.gather(*map(ask, sent[first : first + 32]))
            for byte, status in zip(sent[first:], answers, strict=False):
                clean = byte == 0x09 or 0x20 <= byte <= 0x7E
                if clean or (byte >= 0x80 and name in OPAQUE):
                    assert status == 101 if name in HARMLESS else status in (101, 400, 403, 426), byte
                else:
                    assert status == 400, byte


# --- row 16: line ends, folds, doubles ------------------------------------------------------------

ROW_16 = {
    "cve_2026_44546_vertical_tab": instead(b"Host: localhost", b"Host: localhost\x0bX: 1"),
    "form_feed": instead(b"Host: localhost", b"Host: localhost\x0cX: 1"),
    "file_separator": instead(b"Host: localhost", b"Host: localhost\x1cX: 1"),
    "next_line": instead(b"Host: localhost", b"Host: localhost\x85X: 1"),
    "bare_line_feed": upgrade().replace(b"\r\n", b"\n"),
    "one_bare_line_feed": instead(b"localhost\r\n", b"localhost\n"),
    "bare_carriage_return": instead(b"localhost\r\n", b"localhost\rX: 1\r\n"),
    "folded_line": instead(b"Host: localhost", b"Host: localhost\r\n folded"),
    "cve_2025_69224_blank_before_the_colon": instead(b"Host:", b"Host :"),
    "newline_in_the_key": instead(KEY.encode(), KEY[:12].encode() + b"\n" + KEY[12:].encode()),
    "two_keys": upgrade("/", f"Sec-WebSocket-Key: {KEY}"),
    "two_hosts": upgrade("/", "Host: localhost"),
    "two_versions": upgrade("/", "Sec-WebSocket-Version: 13"),
}


@pytest.mark.parametrize("request_", ROW_16.values(), ids=ROW_16.keys())
async def test_row_16_what_parsers_read_differently_is_400(server, request_):
    async with unharmed(server):
        assert (await answer(server, request_))[0] == 400


# --- row 17: smuggling ----------------------------------------------------------------------------

BODY = (400, "WEBSOCKET_BAD_REQUEST", "request body not allowed")
VERSION = (426, "WEBSOCKET_BAD_VERSION", "websocket version 13 required")
ROW_17 = {
    "cve_2026_69243_content_length": (upgrade("/", "Content-Length: 5"), *BODY),
    "cve_2026_59898_transfer_encoding": (upgrade("/", "Transfer-Encoding: chunked"), *BODY),
    "cve_2024_23326_http_1_0": (
        instead(b"HTTP/1.1", b"HTTP/1.0"),
        426,
        "WEBSOCKET_BAD_UPGRADE",
        "websocket upgrade required, in HTTP/1.1",
    ),
    "version_7": (instead(b"Version: 13", b"Version: 7"), *VERSION),
    "version_8": (instead(b"Version: 13", b"Version: 8"), *VERSION),
    "version_99": (instead(b"Version: 13", b"Version: 99"), *VERSION),
    "no_connection_token": (
        instead(b"Connection: Upgrade", b"Connection: keep-alive"),
        426,
        "WEBSOCKET_BAD_UPGRADE",
        "websocket upgrade required",
    ),
}


@pytest.mark.parametrize(("request_", "status", "code", "message"), ROW_17.values(), ids=ROW_17.keys())
async def test_row_17_upgrade_that_a_proxy_may_read_differently(start, request_, status, code, message):
    asked = []
    routes = {"/smuggled": lambda request: asked.append(request) or plumews.Response.text(200, "x")}
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes=routes))
    async with unharmed(server):
        # What stands behind it would be a body, or a request of its own: neither is looked at.
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        got, refused, wire = await answer(server, request_ + smuggled)
        assert (got, refused["code"], refused["message"], refused["status"]) == (status, code, message, status)
        assert wire.header("connection") == "close"
        assert wire.header("sec-websocket-version") == ("13" if status == 426 else None)
    assert asked == []


# --- row 18: what stands behind the head ----------------------------------------------------------


async def test_section_8_point_29_row_18_frame_behind_head_counts_once(start):
    got = []
    server = await start(plumews.serve(on_message=lambda conn, message: got.append(message), host="127.0.0.1", port=0))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade() + text("glued") + masked(9, b"and") + close())
        await wire.read_head()
        assert wire.status == 101
        assert await wire.event() == (10, b"and")
        assert await wire.closing() == (1000, "")
    assert got == ["glued"]


async def test_row_18_cve_2026_100658_pipelined_requests_one_answer(start, monkeypatch):
    monkeypatch.setattr(closing, "_FIN_WAIT", PATIENCE)
    asked = []
    routes = {"/": lambda request: asked.append(1) or plumews.Response.text(200, "x")}
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes=routes))
    flood = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10_000
    async with unharmed(server), await Wire.connect(server) as wire:
        status, body = await wire.response(flood)
        assert (status, body) == (200, b"x")
    assert asked == [1]


async def test_row_18_requests_behind_an_upgrade_are_invalid_frames(server):
    async with unharmed(server), await Wire.connect(server) as wire:
        wire.writer.write(upgrade() + b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        await wire.read_head()
        assert wire.status == 101
        assert (await wire.closing())[0] == 1002
        await wire.eof()


# --- row 21: pages of other sites -----------------------------------------------------------------

FOREIGN = {
    "cve_2025_24010_evil": "http://evil.com",
    "cve_2026_27148_below_evil": "http://good.com.evil.com",
    "null": "null",
    "other_port": "http://localhost:1",
    "other_scheme": "https://localhost",
    "listed_other_port": "http://good.com:8080",
    "listed_other_scheme": "https://good.com",
    "listed_name_with_a_dot": "http://good.com.",
    "idn_u_label": "http://g\xf6\xf6d.com",
    "idn_punycode": "http://xn--gd-fkaa.com",
    "idn_look_alike_of_localhost": "http://xn--lcalhost-n3b",
    "file": "file://",
    "empty": "",
}


@pytest.mark.parametrize("origin", FOREIGN.values(), ids=FOREIGN.keys())
async def test_row_21_a_page_of_another_site_is_refused(start, origin):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, origins=["http://good.com"]))
    status, refused, _ = await answer(server, upgrade("/", f"Origin: {origin}", host=f"localhost:{server.port}"))
    if origin.isascii():
        assert (status, refused["code"]) == (403, "WEBSOCKET_FORBIDDEN_ORIGIN")
    else:  # no browser sends that: it is refused before it is an origin
        assert (status, refused["code"]) == (400, "WEBSOCKET_BAD_REQUEST")


@pytest.mark.parametrize("host", ["evil.com", "localhost.evil.com", "192.0.2.1", "xn--lcalhost-n3b"])
async def test_row_21_foreign_host_on_loopback_is_403(server, host):
    for lines in ([], [f"Origin: http://{host}"]):
        status, refused, _ = await answer(server, upgrade("/", *lines, host=host))
        assert (status, refused["code"]) == (403, "WEBSOCKET_FORBIDDEN_HOST")


@pytest.mark.parametrize("options", [{}, {"origins": ["*"]}], ids=["same_origin", "any"])
async def test_row_21_two_origins_are_400(start, options):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, **options))
    status, refused, _ = await answer(server, upgrade("/", "Origin: http://localhost", "Origin: http://localhost"))
    assert (status, refused["message"]) == (400, "more than one Origin header")
