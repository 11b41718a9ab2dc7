"""Exporter of hub metrics for Prometheus. Needs ``pip install 'plumews[prometheus]'``.

Names and units are those of OpenMetrics. Each exported family is described by the fields of `HubMetrics`. Invariant:
the number of time series does not depend on clients. No room, user or address is a label, except for the rooms that the
application names. `counters` bounds the number of reasons.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, fields
from typing import Final, TypeAlias

from . import limits
from .errors import ConcurrencyError
from .http11.models import Request, Response
from .hub.hub import Hub
from .hub.metrics import FAMILIES, Export, HubMetrics
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

#: Metrics of a hub, and the member counts of some of its rooms.
_Answer: TypeAlias = "tuple[HubMetrics, Mapping[str, int]]"


def _exported() -> dict[str, list[Field[object]]]:
    """Return the exported fields of `HubMetrics` by the name of their family."""
    families: dict[str, list[Field[object]]] = {}
    for each in fields(HubMetrics):
        export: Export | None = each.metadata["export"]
        if export is not None:
            families.setdefault(export.name or each.name, []).append(each)
    return families


_FAMILIES: Final = _exported()


class HubCollector(Collector):
    """Collector of the metrics of one or more hubs, for a registry of ``prometheus_client``.

    Register it: ``REGISTRY.register(HubCollector(hub))``. Each name begins with ``plumews_hub_`` and has the label
    ``hub``. A scrape costs as much as :meth:`plumews.Hub.metrics`. It may run on any thread: the hub is called on its
    own thread.

    Args:
        hubs: a hub, which is named ``default`` in the label, or a mapping of hubs by their names in the label.
        rooms: names of rooms whose member counts are exported as ``plumews_hub_room_members`` with the label ``room``
            (default: none, because clients could create any number of time series).

    Raises:
        TypeError: ``hubs`` is neither a hub nor a mapping of hubs, ``rooms`` is a ``str``, or a name is not a ``str``.
        ValueError: a name is not valid Unicode, so that it cannot be exported.
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
        """Return the families without values, for the registry to check their names. No hub is called."""
        return self._families({})

    def collect(self) -> Iterator[Metric]:
        """Return all families with the values of this moment.

        Raises:
            ConcurrencyError: a hub's event loop did not answer the thread of the scrape within 5 s.
        """
        return self._families({name: self._ask(hub) for name, hub in self._hubs.items()})

    def _families(self, figures: Mapping[str, _Answer]) -> Iterator[Metric]:
        for name, series in _FAMILIES.items():
            first: Export = series[0].metadata["export"]
            kind = CounterMetricFamily if first.counter else GaugeMetricFamily
            text = FAMILIES.get(name, series[0].metadata["doc"])
            labels = ["hub", first.label] if first.label else ["hub"]
            family = kind(f"plumews_hub_{name}", text, labels=labels, unit=first.unit)
            for hub, (metrics, _) in figures.items():
                for each in series:
                    value = getattr(metrics, each.name)
                    if isinstance(value, Mapping):
                        for word, count in value.items():
                            family.add_metric([hub, word], count)
                    else:
                        word = each.metadata["export"].value
                        family.add_metric([hub, word] if word else [hub], value)
            yield family
        if self._rooms:
            family = GaugeMetricFamily("plumews_hub_room_members", "Members of a room.", labels=["hub", "room"])
            for hub, (_, members) in figures.items():
                for room, count in members.items():
                    family.add_metric([hub, room], count)
            yield family

    def _ask(self, hub: Hub) -> _Answer:
        """Return the metrics of ``hub``, read on its own thread if that still runs."""

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
    """Return a route that answers scrapes: ``serve(..., routes={"/metrics": metrics_route()})``.

    The response is OpenMetrics or the older text format, as the scraper accepts. Any client gets it: restrict the route
    with :func:`plumews.restricted`.

    Args:
        registry: registry to export (default: the global one of ``prometheus_client``).
    """

    def answer(request: Request) -> Response:
        accepted = {entry.partition(";")[0].strip() for entry in ",".join(request.headers.get_all("Accept")).split(",")}
        # Not by choose_encoder() of prometheus_client, which raises for a malformed version.
        openmetrics = _OPENMETRICS.partition(";")[0] in accepted
        encode: Encode = openmetrics_exposition.generate_latest if openmetrics else generate_latest
        content_type = _OPENMETRICS if openmetrics else _TEXT
        return Response(200, [("Content-Type", content_type), ("Cache-Control", "no-store")], encode(registry))

    return answer
