"""A short dose of churn of which nothing remains; `scripts/soak` gives an hour."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from support.soak import check, soak

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")]


@pytest.mark.parametrize("tls", [False, True], ids=["some speak TLS", "all speak TLS"])
async def test_nothing_remains_of_clients_that_come_and_go(
    anyio_backend: tuple[str, dict[str, Any]], tls: bool
) -> None:
    count, _, _ = await soak(uvloop=anyio_backend[1]["use_uvloop"], seconds=1.5, first=0.8, seed=22, tls=tls)
    assert count > 50


@pytest.mark.parametrize(
    "more", [{"descriptors": 1}, {"tasks": 1}, {"memory": 64 << 20}, {"objects": {"plumews.conn.connection.Conn": 1}}]
)
def test_check_finds_what_remains(more: dict[str, Any]) -> None:
    metrics = dict.fromkeys(["broadcast_matched", *(f"broadcast_{n}" for n in ("queued", "dropped", "skipped"))], 0)
    base = {
        "descriptors": 20,
        "connections": 0,
        "tasks": 3,
        "memory": 50 << 20,
        "objects": {"builtins.dict": 5000},
        "metrics": {**metrics, "broadcast_pending": 0},
    }
    check(base, {**base, "objects": {"builtins.dict": 5050}})
    objects = {**base["objects"], **more.pop("objects", {})}  # type: ignore[dict-item]
    now = {**base, "objects": objects, **{name: base[name] + count for name, count in more.items()}}
    with pytest.raises(AssertionError):
        check(base, now)
