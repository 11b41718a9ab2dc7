"""From the text of an option of the command to its value (layer 6).

Each raises ``argparse.ArgumentTypeError``, which says what would be right, and has no password in it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable

from . import limits
from .cli_inputs import room_entry
from .forwarded import TrustedProxies
from .origin import validate_allowed

__all__ = ["allowed", "rate", "room", "seconds", "trusted_proxy", "whole"]


def room(text: str) -> tuple[str, str | None]:
    """A room of ``--room``: its name, and its password if it has one."""
    try:
        return room_entry(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """What reads a whole number within bounds."""
    wanted = f"at least {least}" if most is None else f"from {least} to {most}"

    def convert(text: str) -> int:
        with contextlib.suppress(ValueError):
            number = int(text)
            if least <= number and (most is None or number <= most):
                return number
        raise argparse.ArgumentTypeError(f"must be a whole number, {wanted}, not {text!r}")

    return convert


def seconds(text: str) -> float:
    """A time, 0 or more."""
    with contextlib.suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and number >= 0:
            return number
    raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {text!r}")


def rate(text: str) -> float:
    """How many a second, or 0."""
    with contextlib.suppress(ValueError):
        number = float(text)
        if number == 0 or limits.ACCEPT_RATE_LEAST <= number <= limits.ACCEPT_RATE_MOST:
            return number
    raise argparse.ArgumentTypeError(
        f"must be 0, or {limits.ACCEPT_RATE_LEAST:g} to {limits.ACCEPT_RATE_MOST:,} a second, not {text!r}"
    )


def allowed(kind: str) -> Callable[[str], str]:
    """What reads an origin, or a host, by the argument of `validate_allowed` that it is."""

    def check(text: str) -> str:
        try:
            validate_allowed(**{kind: [text]})
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc
        return text

    return check


def trusted_proxy(text: str) -> str:
    """An address or a network of proxies."""
    try:
        TrustedProxies([text])
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return text
