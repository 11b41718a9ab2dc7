"""The figures of hubs for Prometheus (layer 5); wants ``pip install 'plumews[prometheus]'``.

Names and units are those of OpenMetrics. Invariant: the number of time series does not depend on what clients do. No
room, user or address is a label, but for the rooms that the application names; words of refusals are bounded by
`counts`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from . import limits
from .errors import ConcurrencyError
from .http11.models import Request, Response
from .hub.hub import Hub
from .hub.results import HubMetrics
from .transport.forks import check_owner
from .validation import entries_of

try:
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.openmetrics import exposition as openmetrics_exposition
    from prometheus_client.registry import Collector
except ImportError as exc:
    raise ImportError("plumews.prometheus needs prometheus_client: pip install 'plumews[prometheus]'") from exc

__all__ = ["HubCollector", "metrics_route"]

_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

Encode: TypeAlias = Callable[[CollectorRegistry], bytes]

#: The figures of a hub, and the members of some of its rooms.
_Answer: TypeAlias = "tuple[HubMetrics, Mapping[str, int]]"


class _Figure(NamedTuple):
    """One family of time series; ``value`` gives one number, or a number for each value of ``label``."""

    name: str
    text: str
    value: Callable[[HubMetrics], float | Mapping[str, float]]
    label: str = ""
    unit: str = ""


_COUNTERS: Final = (
    _Figure(
        "joins",
        "Joins of rooms, accepted and refused, by the reason.",
        lambda m: {"accepted": m.accepted_total, **m.rejected_by},
        label="outcome",
    ),
    _Figure(
        "broadcasts",
        "Broadcasts, accepted and refused, by the reason.",
        lambda m: {
            "accepted": m.broadcasts_total,
            "invalid": m.broadcasts_invalid,
            "stopped": m.broadcasts_stopped,
            "overloaded": m.broadcasts_overloaded,
        },
        label="outcome",
    ),
    _Figure(
        "deliveries",
        "Deliveries of broadcasts to members that are decided.",
        lambda m: {"queued": m.broadcast_queued, "dropped": m.broadcast_dropped, "skipped": m.broadcast_skipped},
        label="outcome",
    ),
    _Figure(
        "dropped_deliveries",
        "Deliveries that were dropped, by the policy of a full member, or by what else was the cause.",
        lambda m: m.broadcast_dropped_by,
        label="cause",
    ),
    _Figure(
        "evicted_messages",
        "Messages that waited for members and gave way to newer ones, or to the limit of what may wait in all.",
        lambda m: m.messages_evicted,
    ),
    _Figure(
        "replaced_messages",
        "Broadcasts that waited for members and were replaced by newer ones of their key.",
        lambda m: m.messages_replaced,
    ),
    _Figure(
        "compressed_broadcasts",
        "Compressed frames that were made for broadcasts, one for all members that agreed on the same.",
        lambda m: m.broadcasts_compressed,
    ),
    _Figure(
        "compressed_bytes",
        "Bytes of the frames that were compressed for broadcasts, before and after.",
        lambda m: {"before": m.compressed_bytes_before, "after": m.compressed_bytes_after},
        label="when",
    ),
    _Figure("websockets_opened", "WebSockets that room servers opened.", lambda m: m.websockets_opened),
    _Figure(
        "requests_refused",
        "Requests that room servers refused, by the code in their answer.",
        lambda m: m.requests_refused,
        label="code",
    ),
    _Figure(
        "successful_auths", "Tokens and room passwords that room servers found right.", lambda m: m.successful_auths
    ),
)

_GAUGES: Final = (
    _Figure("connections", "Unique connections in any room.", lambda m: m.active_connections),
    _Figure("registrations", "Members of all rooms added up.", lambda m: m.room_registrations),
    _Figure("rooms", "Rooms with members.", lambda m: m.rooms),
    _Figure("max_connections", "The limit of connections; 0 is none.", lambda m: m.max_connections),
    _Figure("max_room_connections", "The limit for one room; 0 is none.", lambda m: m.max_room_connections),
    _Figure("pending_deliveries", "Deliveries that are not decided yet.", lambda m: m.broadcast_pending),
    _Figure("waiting_jobs", "Broadcasts that have not reached all their members.", lambda m: m.jobs_waiting),
    _Figure("max_waiting_jobs", "Broadcasts that may wait.", lambda m: m.job_queue_size),
    _Figure("queued_messages", "Messages in the send queues of all members.", lambda m: m.queued_messages),
    _Figure("queued_bytes", "Bytes in the send queues of all members.", lambda m: m.queued_bytes, unit="bytes"),
    _Figure("compression_bytes", "Bytes that zlib holds for all members.", lambda m: m.compression_bytes, unit="bytes"),
    _Figure("largest_queue_messages", "Messages in the longest send queue.", lambda m: m.largest_queue_messages),
    _Figure("largest_queue_bytes", "Bytes in the largest send queue.", lambda m: m.largest_queue_bytes, unit="bytes"),
    _Figure("backlogged_connections", "Members that do not read fast enough.", lambda m: m.backlogged_connections),
    _Figure(
        "oldest_queued_age_seconds",
        "How long the oldest message for such a member has waited.",
        lambda m: m.oldest_queued_age,
        unit="seconds",
    ),
)


class HubCollector(Collector):
    """The figures of one hub or more, for a registry of ``prometheus_client``.

    ``REGISTRY.register(HubCollector(hub))``. Each name begins with ``plumews_hub_`` and has the label ``hub``. A scrape
    costs what :meth:`plumews.Hub.metrics` does. It may come on any thread: the hub is asked on its own.

    Args:
        hubs: a hub, which is named ``default``, or several by the names they have in the label.
        rooms: names of rooms whose members are told as ``plumews_hub_room_members`` with the label ``room`` (default:
            none, because clients could make as many time series as they like).

    Raises:
        TypeError: ``hubs`` is neither a hub nor a mapping of them, or ``rooms`` is a str, or a name is none.
        ValueError: a name is not valid Unicode, which no scrape could tell.
    """

    def __init__(self, hubs: Hub | Mapping[str, Hub], *, rooms: Collection[str] = ()) -> None:
        self._hubs = {"default": hubs} if isinstance(hubs, Hub) else dict(hubs)
        for hub in self._hubs.values():
            if not isinstance(hub, Hub):
                raise TypeError(f"a hub must be a plumews.Hub, not {type(hub).__name__}")
        self._rooms = tuple(dict.fromkeys(entries_of("rooms", rooms, '"chat"')))
        for name in (*self._hubs, *self._rooms):
            _check_label(name)

    def describe(self) -> Iterator[Metric]:
        """The names, for the registry to see that they are free; no hub is asked."""
        return self._families({})

    def collect(self) -> Iterator[Metric]:
        """All figures now.

        Raises:
            ConcurrencyError: a hub's event loop did not answer the thread of the scrape within 5 s.
        """
        return self._families({name: self._ask(hub) for name, hub in self._hubs.items()})

    def _families(self, figures: Mapping[str, _Answer]) -> Iterator[Metric]:
        for kind, table in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
            for name, text, value_of, label, unit in table:
                family = kind(f"plumews_hub_{name}", text, labels=["hub", label] if label else ["hub"], unit=unit)
                for hub, (metrics, _) in figures.items():
                    value = value_of(metrics)
                    if isinstance(value, Mapping):
                        for word, count in value.items():
                            family.add_metric([hub, word], count)
                    else:
                        family.add_metric([hub], value)
                yield family
        if self._rooms:
            family = GaugeMetricFamily("plumews_hub_room_members", "Members of a room.", labels=["hub", "room"])
            for hub, (_, members) in figures.items():
                for room, count in members.items():
                    family.add_metric([hub, room], count)
            yield family

    def _ask(self, hub: Hub) -> _Answer:
        """What ``hub`` says, on the thread to which it belongs, if it belongs to one that still runs."""

        def ask() -> _Answer:
            return hub.metrics(), {room: hub.room_count(room) for room in self._rooms}

        async def ask_there() -> _Answer:
            return ask()

        loop = hub._loop
        check_owner(hub._thread, "hub")
        if loop is None or not loop.is_running() or hub._thread == threading.get_ident():
            return ask()
        future = asyncio.run_coroutine_threadsafe(ask_there(), loop)
        try:
            return future.result(limits.SCRAPE_TIMEOUT)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise ConcurrencyError(
                f"the event loop of a hub did not answer within {limits.SCRAPE_TIMEOUT:g} s"
            ) from None


def _check_label(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a hub or room must be a str, not {type(name).__name__}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {name!r} cannot be told in a scrape: it is not valid Unicode") from None


def metrics_route(registry: CollectorRegistry = REGISTRY) -> Callable[[Request], Response]:
    """A route that answers a scrape of ``registry``: ``serve(..., routes={"/metrics": metrics_route()})``.

    In OpenMetrics or in the older text format, as the scraper likes it. Whoever can ask is answered; see
    :func:`plumews.restricted`.
    """

    def answer(request: Request) -> Response:
        accepted = {entry.partition(";")[0].strip() for entry in ",".join(request.headers.get_all("Accept")).split(",")}
        # Not by choose_encoder() of the client, which fails on a version that is none.
        openmetrics = _OPENMETRICS.partition(";")[0] in accepted
        encode: Encode = openmetrics_exposition.generate_latest if openmetrics else generate_latest
        content_type = _OPENMETRICS if openmetrics else _TEXT
        return Response(200, [("Content-Type", content_type), ("Cache-Control", "no-store")], encode(registry))

    return answer
