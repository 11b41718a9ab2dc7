"""From the text of an option of the command to its value (layer 6).

Each raises ``argparse.ArgumentTypeError``, which says what would be right, and has no password in it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable

from .. import limits
from ..http11.origin import allowed_hosts, allowed_origins
from ..http11.proxies import TrustedProxies
from ..server.sockets import check_unix
from .inputs import room_entry

__all__ = ["allowed", "permissions", "rate", "room", "seconds", "trusted_proxy", "unix_path", "whole"]


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
    """Return the reader of one entry of ``origins`` or ``hosts``."""
    check_all: Callable[[list[str]], object] = allowed_origins if kind == "origins" else allowed_hosts

    def check(text: str) -> str:
        try:
            check_all([text])
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


def unix_path(text: str) -> str:
    """The path of a Unix socket; ``@NAME`` is an abstract one."""
    try:
        return check_unix(f"\0{text[1:]}" if text.startswith("@") else text, None)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def permissions(text: str) -> int:
    """Permissions as chmod(1) takes them in octal."""
    with contextlib.suppress(ValueError):
        mode = int(text, 8)
        if 0 <= mode <= 0o777:
            return mode
    raise argparse.ArgumentTypeError(f"must be permissions in octal, such as 660, not {text!r}")
