"""Tests of the limits: each has a comment and a user, and related ones agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import plumews
from plumews import limits

SOURCES = Path(plumews.__file__).parent
LINES = (SOURCES / "limits.py").read_text(encoding="utf-8").split("\n")
NAMES = [name for name in vars(limits) if name.isupper()]


def reason(name: str) -> str:
    """Return the comment above a limit. Adjacent limits share a comment."""
    at = next(number for number, line in enumerate(LINES) if line.startswith(f"{name}: Final = ")) - 1
    while re.match(r"[A-Z_]+: Final = ", LINES[at]):
        at -= 1
    return LINES[at] if LINES[at].startswith("#:") else ""


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_has_a_comment(name: str) -> None:
    assert reason(name), f"say over {name} what it bounds and why it is what it is"


def test_every_limit_is_used() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in SOURCES.rglob("*.p*")
        if path.suffix in (".py", ".pyx", ".pxi", ".pxd")
        if path.stem != "limits"
    )
    # Some are made of others, or are behind a function.
    source += "\n".join(re.sub(r"^[A-Z_]+: Final = |^#.*", "", line) for line in LINES)
    assert [name for name in NAMES if not re.search(rf"\b{name}\b", source)] == []


def test_max_frames_allows_fragments_of_64_bytes() -> None:
    bound = limits.max_frames(limits.READ_LIMIT)
    assert bound is not None
    assert limits.READ_LIMIT // 64 <= bound < limits.READ_LIMIT // 16
    assert limits.max_frames(0) == limits.FRAMES_BASE
    assert limits.max_frames(None) is None


def test_related_limits_agree() -> None:
    assert limits.PING_INTERVAL + limits.PING_TIMEOUT == 30
    assert limits.COPY_SIZE <= limits.FRAGMENT_SIZE <= limits.TRANSPORT_HIGH_WATER < limits.QUEUE_BYTES
    assert 2 * limits.CONNECTIONS_PER_ADDRESS < limits.MAX_OPENING < limits.MAX_CONNECTIONS
    assert limits.HISTORY_ROOM_BYTES <= limits.HISTORY_BYTES
    assert limits.SPREAD_SHARE + limits.SETTLE_SHARE < 1
    assert limits.RECONNECT_IN <= limits.LONGEST_RECONNECT
    assert limits.LOG_REPEATED < limits.LOG_LINES
    least, most = limits.PASSWORD_COSTS
    assert least <= limits.PASSWORD_ROUNDS <= most
    assert limits.ACCEPT_RATE_LEAST < limits.ACCEPT_RATE_PER_ADDRESS < limits.ACCEPT_RATE_MOST
