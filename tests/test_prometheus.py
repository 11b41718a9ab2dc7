"""Tests of the Prometheus exporter, whose output the parser of prometheus_client reads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

import plumews
from plumews import Hub, HubConfig, SendBehavior, limits
from plumews.prometheus import HubCollector, metrics_route
from support.fakes import fake_conn, ticks, until
from support.raw_client import Wire

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

Sample = tuple[str, frozenset[tuple[str, str]]]


def registered(*collectors: HubCollector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    for collector in collectors:
        registry.register(collector)
    return registry


def samples(registry: CollectorRegistry) -> dict[Sample, float]:
    """Return all samples by name and labels, parsed strictly as OpenMetrics."""
    families = read_openmetrics(generate_latest(registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def one(found: dict[Sample, float], name: str, **labels: str) -> float:
    return found[f"plumews_hub_{name}", frozenset({"hub": "default", **labels}.items())]


def member(hub: Hub, *rooms: str, **config: Any) -> Any:
    conn, transport = fake_conn(**{"ping_interval": None, **config})
    for room in rooms:
        hub.join(room, conn)
    return conn, transport


# --- the figures ----------------------------------------------------------------------------------


async def test_every_metric_of_a_hub_is_exported():
    hub = Hub(HubConfig(max_connections=3, max_room_connections=2, job_queue_size=9))
    conn, transport = member(hub, "chat", "news", queue_size=1, send_behavior=SendBehavior.DROP)
    member(hub, "chat")
    transport.fill()
    for _ in range(3):
        hub.broadcast_room("chat", "x")
    hub.broadcast_room("", "x")
    with pytest.raises(plumews.RoomFull):
        member(hub, "chat")
    hub._requests.refused.add("WEBSOCKET_FORBIDDEN_ORIGIN")
    await ticks()
    found = samples(registered(HubCollector(hub)))
    metrics = hub.metrics()
    for name, value in {
        "connections": 2,
        "registrations": 3,
        "rooms": 2,
        "max_connections": 3,
        "max_room_connections": 2,
        "pending_deliveries": 0,
        "waiting_jobs": 0,
        "max_waiting_jobs": 9,
        "queued_messages": 1,
        "queued_bytes": conn.queued_bytes,
        "largest_queue_messages": 1,
        "largest_queue_bytes": conn.queued_bytes,
        "backlogged_connections": 1,
        "evicted_messages_total": 0,
        "replaced_messages_total": 0,
        "websockets_opened_total": 0,
        "successful_auths_total": 0,
    }.items():
        assert one(found, name) == value, name
    assert 0 < one(found, "oldest_queued_age_seconds") <= metrics.oldest_queued_age
    assert one(found, "joins_total", outcome="accepted") == 3
    assert one(found, "joins_total", outcome="room_full") == 1
    assert one(found, "joins_total", outcome="hub_full") == 0
    assert one(found, "broadcasts_total", outcome="accepted") == 3
    assert one(found, "broadcasts_total", outcome="invalid") == 1
    assert one(found, "deliveries_total", outcome="queued") == metrics.broadcast_queued == 4
    assert one(found, "deliveries_total", outcome="dropped") == 2
    assert one(found, "dropped_deliveries_total", cause="drop") == 2
    assert one(found, "dropped_deliveries_total", cause="block") == 0
    assert one(found, "requests_refused_total", code="WEBSOCKET_FORBIDDEN_ORIGIN") == 1


async def test_metric_names_end_with_their_unit():
    text = generate_latest(registered(HubCollector(Hub()))).decode()
    assert "# UNIT plumews_hub_queued_bytes bytes\n" in text
    assert "# UNIT plumews_hub_oldest_queued_age_seconds seconds\n" in text


async def test_clients_add_no_time_series():
    hub = Hub()
    registry = registered(HubCollector(hub))
    before = len(samples(registry))
    for number in range(3 * limits.COUNTED_NAMES):
        member(hub, f"room {number}")
        hub.broadcast_room(f"room {number}", "x")
    assert len(samples(registry)) == before
    for number in range(3 * limits.COUNTED_NAMES):  # an application with words of its own
        hub._requests.refused.add(f"CODE_{number}")
    assert len(samples(registry)) == before + limits.COUNTED_NAMES + 1


async def test_named_rooms_are_exported():
    hub = Hub()
    for _ in range(2):
        member(hub, 'räume "1"\\', "unnamed")
    found = samples(registered(HubCollector(hub, rooms=['räume "1"\\', "nowhere", "nowhere"])))
    rooms = {labels: value for (name, labels), value in found.items() if name == "plumews_hub_room_members"}
    assert rooms == {
        frozenset({("hub", "default"), ("room", 'räume "1"\\')}): 2,
        frozenset({("hub", "default"), ("room", "nowhere")}): 0,
    }


async def test_several_hubs_have_different_labels():
    hubs = {"chat": Hub(), "prices": Hub()}
    member(hubs["prices"], "eur")
    found = samples(registered(HubCollector(hubs)))
    assert {name: found["plumews_hub_connections", frozenset({("hub", name)})] for name in hubs} == {
        "chat": 0,
        "prices": 1,
    }


def test_second_collector_with_the_same_names_is_refused():
    registry = registered(HubCollector(Hub()))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(HubCollector(Hub()))


def test_registration_asks_no_hub():
    class Silent(Hub):
        def metrics(self) -> plumews.HubMetrics:
            raise AssertionError

    registered(HubCollector(Silent()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: HubCollector("hub"), None),  # type: ignore[arg-type]
        (lambda: HubCollector({"a": None}), "a hub must be a plumews.Hub, not NoneType"),  # type: ignore[dict-item]
        (
            lambda: HubCollector(Hub(), rooms="chat"),
            r"rooms must be a list of str, such as \[\"chat\"\], not the str 'chat'",
        ),
        (lambda: HubCollector(Hub(), rooms=[5]), "rooms must be a list of str, .* 5 in it is none"),  # type: ignore[list-item]
        (lambda: HubCollector({b"a": Hub()}), "must be a str, not bytes"),  # type: ignore[dict-item]
        (lambda: HubCollector(Hub(), rooms=["\ud800"]), r"the name '\\ud800' cannot be told in a scrape"),
    ],
)
def test_collector_of_other_objects_raises_type_error(make: Callable[[], Any], said: str | None):
    with pytest.raises((TypeError, ValueError), match=said):
        make()


# --- on other threads -----------------------------------------------------------------------------


async def test_scrape_on_another_thread_runs_on_the_hubs_loop():
    threads = []

    class Asked(Hub):
        def metrics(self) -> plumews.HubMetrics:
            threads.append(threading.get_ident())
            return super().metrics()

    async with Asked() as hub:
        conn, _ = member(hub, "chat")
        registry = registered(HubCollector(hub))
        found = await asyncio.get_running_loop().run_in_executor(None, samples, registry)
        assert one(found, "connections") == 1
        assert one(samples(registry), "connections") == 1
        assert threads == [threading.get_ident()] * 2
        conn.abort()  # it would not answer a close frame


async def test_scrape_of_a_blocked_loop_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "SCRAPE_TIMEOUT", 0.01)
    errors: list[BaseException] = []

    def scrape() -> None:
        try:
            list(HubCollector(hub).collect())
        except BaseException as exc:
            errors.append(exc)

    async with Hub() as hub:
        thread = threading.Thread(target=scrape)
        thread.start()
        thread.join()  # which holds up the loop
    (error,) = errors
    assert isinstance(error, plumews.ConcurrencyError)
    assert str(error) == "the event loop of a hub did not answer within 0.01 s"


def test_hub_with_a_closed_loop_is_exported():
    async def use() -> Hub:
        async with Hub() as hub:
            hub.broadcast_room("chat", "x")
        return hub

    assert one(samples(registered(HubCollector(asyncio.run(use())))), "broadcasts_total", outcome="accepted") == 1


# --- the route ------------------------------------------------------------------------------------


async def scrape(server: Any, accept: str | None) -> tuple[int, str, str]:
    async with await Wire.connect(server) as wire:
        lines = ["GET /metrics HTTP/1.1", "Host: localhost", *([] if accept is None else [f"Accept: {accept}"])]
        status, body = await wire.response(("\r\n".join(lines) + "\r\n\r\n").encode())
        assert wire.header("Cache-Control") == "no-store"
        return status, wire.header("Content-Type") or "", body.decode()


async def test_route_answers_in_the_requested_format(start):
    hub = Hub()
    registry = registered(HubCollector(hub))
    server = await start(
        plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, routes={"/metrics": metrics_route(registry)})
    )
    async with await Wire.open(server, "/ws?room=chat"):
        await until(lambda: hub.room_count("chat"))
        status, content_type, body = await scrape(server, OPENMETRICS)
        assert (status, content_type) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        assert {"plumews_hub_rooms", "plumews_hub_joins"} <= {family.name for family in read_openmetrics(body)}
        assert (await scrape(server, f"*/*\r\nAccept: {OPENMETRICS}"))[1].startswith("application/openmetrics-text")
        for accept in (None, "*/*", "text/plain;version=0.0.4"):
            status, content_type, body = await scrape(server, accept)
            assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert "plumews_hub_connections" in {family.name for family in read_text(body)}
            assert 'plumews_hub_websockets_opened_total{hub="default"} 1.0\n' in body


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=",
        "application/openmetrics-text;version=1.0.0;escaping=x",
        "text/plain;version=..;escaping=",
        "application/openmetrics-text;version",
        ",;=,;;",
    ],
)
async def test_route_answers_any_accept_header(start, accept):
    server = await start(
        plumews.serve(on_message=print, host="127.0.0.1", port=0, routes={"/metrics": metrics_route(registered())})
    )
    assert (await scrape(server, accept))[0] == 200


# --- without the extra ----------------------------------------------------------------------------


def test_missing_prometheus_client_says_what_to_install():
    code = "import sys; sys.modules['prometheus_client'] = None; import plumews; import plumews.prometheus"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(plumews.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: plumews.prometheus needs prometheus_client: pip install 'plumews[prometheus]'"
    )


async def test_evicted_messages_are_exported():
    hub = Hub()
    conn, transport = member(hub, "chat", queue_size=1, send_behavior=SendBehavior.CONFLATE)
    transport.fill()
    for key in (None, None, "key", "key", "key"):
        hub.broadcast_room("chat", "x", key=key)
    found = samples(registered(HubCollector(hub)))
    assert one(found, "evicted_messages_total") == conn.evicted_messages == 2
    assert one(found, "replaced_messages_total") == conn.replaced_messages == 2
