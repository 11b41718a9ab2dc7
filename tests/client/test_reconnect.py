"""Tests of reconnecting: which failures end it, the delays, sleep, and the position for the next connection."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plumews
from plumews import limits
from plumews.client.reconnect import (
    CLOSE_CODES,
    Action,
    Clocks,
    Reconnector,
    Resumption,
    action_for_close,
    action_for_error,
    action_for_status,
    full_jitter,
    reconnect_hint,
    retry_after,
    suspended_time,
)
from plumews.client.uri import parse_uri
from plumews.constants import CloseCode
from plumews.errors import (
    Close,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    InvalidHandshake,
    InvalidURI,
    ProxyError,
    RedirectError,
)
from plumews.http11.headers import Headers
from plumews.position import Position

RECONNECT, FRESH_TOKEN, STAY_AWAY = Action


def closed(code: int | None, reason: str = "") -> ConnectionClosed:
    return ConnectionClosed(None if code is None else Close(code, reason), None)


class Refusal(InvalidHandshake):
    """Refused handshake, as the client raises it."""

    def __init__(self, status: int, *headers: tuple[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.response = SimpleNamespace(status=status, headers=Headers(headers))


class Clock:
    """Clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


# --- which failures end it --------------------------------------------------------------------------


def test_close_codes_are_listed_once_and_in_order() -> None:
    codes = [rule.code for rule in CLOSE_CODES]
    assert codes == sorted(set(codes))
    assert {int(code) for code in CloseCode} <= set(codes)


def test_documentation_has_the_table_of_close_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "connecting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{4}) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert rows == [(str(rule.code), rule.action.value, rule.why) for rule in CLOSE_CODES]


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (1000, RECONNECT),
        (1001, RECONNECT),
        (1008, STAY_AWAY),
        (1012, RECONNECT),
        (1013, RECONNECT),
        (3000, FRESH_TOKEN),
        (4401, FRESH_TOKEN),
        (4403, STAY_AWAY),
        (4999, RECONNECT),
    ],
)
def test_close_code_decides(code: int, action: Action) -> None:
    assert action_for_close(code) is action
    assert action_for_error(closed(code)) is action


@pytest.mark.parametrize(
    ("status", "action"),
    [
        *[(status, RECONNECT) for status in (408, 429, 500, 502, 503, 504, 599)],
        *[(status, STAY_AWAY) for status in (200, 302, 400, 403, 404, 426, 499, 600)],
        (401, FRESH_TOKEN),
    ],
)
def test_status_of_a_refusal_decides(status: int, action: Action) -> None:
    assert action_for_status(status) is action
    assert action_for_error(Refusal(status)) is action


@pytest.mark.parametrize(
    ("exc", "action"),
    [
        (OSError("network"), RECONNECT),
        (ConnectionResetError(), RECONNECT),
        (EOFError(), RECONNECT),
        (TimeoutError(), RECONNECT),
        (ConnectTimeout("tls", "h:1", "10 s"), RECONNECT),
        (ConnectError("resolve", "h", "no such name"), RECONNECT),
        (ProxyError("p:1", "malformed reply"), RECONNECT),
        (ProxyError("p:1", "bad gateway", 502), RECONNECT),
        (ProxyError("p:1", "authentication", 407), STAY_AWAY),
        (ProxyError("p:1", "unauthorized", 401), STAY_AWAY),
        (RedirectError("h:1", "too many", 302), STAY_AWAY),
        (InvalidURI("why"), STAY_AWAY),
        (InvalidHandshake("wrong key"), STAY_AWAY),
        (KeyError("defect"), STAY_AWAY),
        (closed(None), RECONNECT),
        (ConnectionClosed(None, Close(1011, "keepalive")), RECONNECT),
        (ConnectionClosed(None, Close(1009, "too big")), STAY_AWAY),
    ],
)
def test_error_decides(exc: Exception, action: Action) -> None:
    assert action_for_error(exc) is action
    reconnector = Reconnector()
    if action is RECONNECT:
        assert 0 <= reconnector.failed(exc) <= 1
    else:
        with pytest.raises(type(exc)) as caught:
            reconnector.failed(exc)
        assert caught.value is exc
    assert reconnector.last_error is exc


@pytest.mark.parametrize("exc", [Refusal(401), closed(4401)])
def test_401_ends_it_after_one_fresh_token(exc: Exception) -> None:
    reconnector = Reconnector(fresh_token=True)
    fail = reconnector.closed if isinstance(exc, ConnectionClosed) else reconnector.failed
    fail(exc)  # type: ignore[arg-type]
    assert reconnector.needs_fresh_token
    reconnector.opened()
    assert not reconnector.needs_fresh_token
    with pytest.raises(type(exc)):
        fail(exc)  # type: ignore[arg-type]


def test_401_ends_it_at_once_with_a_fixed_token() -> None:
    with pytest.raises(Refusal):
        Reconnector().failed(Refusal(401))


def test_long_connection_earns_another_fresh_token() -> None:
    clock = Clock()
    reconnector = Reconnector(fresh_token=True, clock=clock)
    for _ in range(3):
        reconnector.closed(closed(4401))
        assert reconnector.needs_fresh_token
        reconnector.opened()
        clock.now += 100
        reconnector.closed(closed(1001))


def test_process_exception_decides_in_place_of_the_default() -> None:
    asked = []

    def process(exc: Exception) -> Exception | None:
        asked.append(exc)
        return None if isinstance(exc, Refusal) else ValueError("other")

    reconnector = Reconnector(process_exception=process)
    forbidden, unauthorized = Refusal(403), Refusal(401)
    assert 0 <= reconnector.failed(forbidden) <= 1
    assert 0 <= reconnector.failed(unauthorized) <= 2
    with pytest.raises(ValueError, match="other") as caught:
        reconnector.failed(OSError("network"))
    assert isinstance(caught.value.__cause__, OSError)
    assert asked[:2] == [forbidden, unauthorized]


# --- delays -----------------------------------------------------------------------------------------


def test_jitter_is_from_0_to_a_bound_that_doubles() -> None:
    assert [bound for _, bound in itertools.islice(full_jitter(), 9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [delay for delay, _ in itertools.islice(full_jitter(random=lambda: 0.5), 3)] == [0.5, 1, 2]
    assert [delay for delay, _ in itertools.islice(full_jitter(random=lambda: 0.0), 3)] == [0, 0, 0]


def attempts_in(seconds: float, *, lasts: float, seed: int, reason: str = "") -> int:
    """Count the attempts at a server that accepts, and closes after ``lasts`` seconds."""
    clock = Clock()
    reconnector = Reconnector(random=random.Random(seed).random, clock=clock)
    while True:
        reconnector.opened()
        clock.now += lasts
        clock.now += reconnector.closed(closed(1012, reason))
        if clock.now > seconds:
            return reconnector.attempt - 1


@pytest.mark.parametrize("reason", ["", "reconnect in 0.0 s"])
def test_server_that_accepts_and_closes_sees_few_attempts(reason: str) -> None:
    counts = [attempts_in(10, lasts=0.001, seed=seed, reason=reason) for seed in range(200)]
    assert 4 <= sum(counts) / len(counts) <= 6
    assert max(counts) <= 12


def test_delay_falls_back_after_a_connection_that_lasts() -> None:
    clock = Clock()
    reconnector = Reconnector(random=lambda: 1.0, clock=clock)
    assert [reconnector.failed(OSError()) for _ in range(4)] == [1, 2, 4, 8]
    reconnector.opened()
    clock.now += 7.9  # not longer than the last delay
    assert reconnector.closed(closed(1012)) == 16
    reconnector.opened()
    clock.now += 16.1
    assert reconnector.closed(closed(1012)) == 1
    assert reconnector.attempt == 7


def test_any_delays_may_be_given_and_their_end_is_the_end() -> None:
    clock = Clock()
    reconnector = Reconnector([0.5, 3], clock=clock)
    assert reconnector.failed(OSError()) == 0.5
    reconnector.opened()
    clock.now += 1
    assert reconnector.closed(closed(1012)) == 0.5  # anew
    assert reconnector.failed(OSError()) == 3
    with pytest.raises(OSError, match="last"):
        reconnector.failed(OSError("last"))


def test_iterator_of_delays_goes_on_where_it_is() -> None:
    clock = Clock()
    reconnector = Reconnector(iter([1, 2, 3]), clock=clock)
    assert reconnector.failed(OSError()) == 1
    reconnector.opened()
    clock.now += 100
    assert reconnector.closed(closed(1012)) == 2
    made = Reconnector(lambda: iter([5, 6]), clock=clock)
    assert made.failed(OSError()) == 5
    made.opened()
    clock.now += 100
    assert made.closed(closed(1012)) == 5


@pytest.mark.parametrize(("delay", "error"), [(-1, ValueError), (math.inf, ValueError), (math.nan, ValueError)])
def test_delays_are_checked(delay: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="a delay must be"):
        Reconnector([delay]).failed(OSError())


def test_delays_must_be_an_iterable() -> None:
    with pytest.raises(TypeError, match="delays must be"):
        Reconnector(3)  # type: ignore[arg-type]


# --- what the server asks for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("999999999", limits.LONGEST_RECONNECT),
        ("9" * 60, limits.LONGEST_RECONNECT),
        ("9" * 65, None),
        (formatdate(1_000_030, usegmt=True), 30),
        (formatdate(900_000, usegmt=True), 0),
        (formatdate(9_000_000, usegmt=True), limits.LONGEST_RECONNECT),
        ("Thu, 99 Jan 9999 99:99:99 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("inf", None),
        ("", None),
        ("٣", None),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(value, 1_000_000.0) == seconds


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("reconnect in 3.2 s", 3.2),
        ("restart; reconnect in 10 s", 10),
        ("reconnect in 999999999 s", limits.LONGEST_RECONNECT),
        ("reconnect in -3 s", None),
        ("reconnect in inf s", None),
        ("reconnect in 1e9 s", None),
        ("", None),
    ],
)
def test_hint_in_a_close_reason_is_read(reason: str, seconds: float | None) -> None:
    assert reconnect_hint(reason) == seconds


def test_refusal_delays_by_retry_after_and_the_jitter() -> None:
    reconnector = Reconnector(random=lambda: 0.5)
    assert reconnector.failed(Refusal(503, ("Retry-After", "20"))) == 20.5
    assert reconnector.failed(Refusal(503, ("retry-after", "junk"))) == 1
    assert reconnector.failed(ProxyError("p:1", "busy", 503, (("Retry-After", "7"),))) == 9


def test_retry_after_date_is_measured_from_that_of_the_response() -> None:
    late = Refusal(503, ("Date", formatdate(5000, usegmt=True)), ("Retry-After", formatdate(5030, usegmt=True)))
    assert Reconnector(random=lambda: 0.0, wall_clock=lambda: 0.0).failed(late) == 30
    plain = Refusal(503, ("Retry-After", formatdate(40, usegmt=True)))
    assert Reconnector(random=lambda: 0.0, wall_clock=lambda: 10.0).failed(plain) == 30


def test_hint_replaces_a_shorter_delay_alone() -> None:
    reconnector = Reconnector(random=lambda: 1.0)
    assert reconnector.closed(closed(1012, "reconnect in 3.2 s")) == 3.2
    assert reconnector.closed(closed(1012, "reconnect in 0.1 s")) == 2


@given(st.text(max_size=80), st.text(max_size=80))
def test_delay_is_sane_whatever_a_server_says(value: str, reason: str) -> None:
    for told in (retry_after(value, 0.0), reconnect_hint(reason), reconnect_hint(f"reconnect in {value} s")):
        assert told is None or 0 <= told <= limits.LONGEST_RECONNECT


# --- sleep ------------------------------------------------------------------------------------------


def test_jump_between_the_clocks_is_sleep() -> None:
    earlier = Clocks(10.0, 100.0)
    assert suspended_time(earlier, Clocks(15.0, 105.0)) == 0
    assert suspended_time(earlier, Clocks(15.0, 105.9)) == 0
    assert suspended_time(earlier, Clocks(15.0, 165.0)) == 60
    assert suspended_time(earlier, Clocks(15.0, 50.0)) == 0
    now = Clocks.now()
    assert suspended_time(now, Clocks.now()) == 0


# --- positions --------------------------------------------------------------------------------------


def event(offset: int, missed: int) -> str:
    """Return the event of a room server."""
    return json.dumps({"type": "recovered", "complete": True, "missed": missed, "position": f"e.{offset}"})


def test_position_of_a_message_is_that_of_the_next_connection() -> None:
    resumption = Resumption(lambda message: json.loads(message).get("at"))
    uri = parse_uri("ws://h/ws?room=a")
    assert resumption.uri(uri) == uri
    resumption.observe('{"at": "e.7"}')
    resumption.observe('{"text": "without"}')
    assert resumption.uri(uri).resource == "/ws?room=a&since=e.7"


def test_recovered_event_counts_after_the_missed_messages() -> None:
    resumption = Resumption()
    uri = parse_uri("ws://h/ws?since=start")
    resumption.uri(uri)
    resumption.observe('{"type": "joined", "room": "a"}')
    resumption.observe(event(9, missed=2))
    resumption.observe("one")
    assert resumption.observes
    assert resumption.uri(uri) == uri  # one of the two is missing
    resumption.observe(event(9, missed=2))
    resumption.observe("one")
    resumption.observe(b"two")
    assert resumption.position == Position("e", 9)
    assert not resumption.observes
    assert resumption.uri(uri).resource == "/ws?since=e.9"


def test_recovered_event_without_missed_messages_counts_at_once() -> None:
    resumption = Resumption()
    resumption.uri(parse_uri("ws://h/ws?since=start"))
    resumption.observe(event(3, missed=0))
    assert resumption.position == Position("e", 3)


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "recovered"}',
        '{"type": "recovered", "missed": 0, "position": "nonsense"}',
        '{"type": "recovered", "missed": "0", "position": "e.1"}',
        '{"type": "recovered", "missed": 0, "position": null}',
        '{"type": "said", "text": "recovered", "missed": 0, "position": "e.1"}',
        '["recovered"]',
        '"recovered"',
        "recovered",
        b'{"type": "recovered", "missed": 0, "position": "e.1"}',
    ],
)
def test_other_messages_are_no_events(message: str | bytes) -> None:
    resumption = Resumption()
    resumption.uri(parse_uri("ws://h/ws?since=start"))
    resumption.observe(message)
    assert resumption.position is None


def test_event_counts_in_the_first_messages_of_a_recovery_alone() -> None:
    forged = event(1, missed=0)
    resumption = Resumption()
    resumption.uri(parse_uri("ws://h/ws"))
    assert not resumption.observes
    resumption.observe(forged)
    assert resumption.position is None
    resumption.uri(parse_uri("ws://h/ws?since=start"))
    for message in ("one", "two", forged):
        resumption.observe(message)
    assert resumption.position is None


def test_position_of_must_return_a_position() -> None:
    with pytest.raises(ValueError, match="a position must look like"):
        Resumption(lambda _: "nonsense").observe("x")
    with pytest.raises(TypeError, match="a position is read from a str"):
        Resumption(lambda _: 7).observe("x")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="position_of must be a function"):
        Resumption("at")  # type: ignore[arg-type]


async def read(uri: str, resumption: Resumption, count: int) -> list[str]:
    """Connect with the last position, and return the text of ``count`` messages."""
    async with plumews.connect(resumption.uri(parse_uri(uri)).url) as conn:
        messages = []
        for _ in range(count):
            messages.append(await conn.recv())
            resumption.observe(messages[-1])
    return [str(message) for message in messages]


async def test_room_of_a_server_is_resumed_without_a_loss(start: Any) -> None:
    async with plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits())) as hub:
        auth = plumews.SimpleRoomAuth(None)
        server = await start(
            plumews.serve_rooms(hub, auth, "127.0.0.1", 0, recovery=True, require_token=False, allow_unknown_rooms=True)
        )
        uri = f"ws://127.0.0.1:{server.port}/ws?since=start"
        resumption = Resumption()
        for text in ("one", "two", "three"):
            hub.broadcast_room("default", text)
        assert (await read(uri, resumption, 2))[1] == "one"
        assert (await read(uri, resumption, 4))[1:] == ["one", "two", "three"]  # two had not arrived
        hub.broadcast_room("default", "four")
        assert (await read(uri, resumption, 2))[1] == "four"

        by_message = Resumption(lambda message: json.loads(message).get("at"))
        hub.broadcast_room("default", lambda at: json.dumps({"at": str(at)}))
        hub.broadcast_room("default", lambda at: json.dumps({"at": str(at), "last": True}))
        by_message.observe(json.dumps({"at": str(Position(hub.position("default").epoch, 5))}))
        assert json.loads((await read(uri, by_message, 2))[1])["last"]
        assert by_message.position == hub.position("default")
