"""Routes that are not for everybody: for this machine alone, or for who shows a token (layer 5).

An address says little behind a proxy: to a server beside it everybody comes from this machine. So who counts as local
has come straight from here: from a loopback address, to a loopback name, and through nobody who says that he passes
something on. A proxy that hides all that is not seen through; there, a token is the answer.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from .. import limits
from ..auth.credentials import bearer_of
from ..errors import InvalidHeader, Refused
from ..http11.models import Request, Response
from ..http11.origin import LOOPBACK_HOSTS, check_host, is_loopback

__all__ = ["check_route_token", "is_local", "restricted"]

#: What proxies add to a request, but for those whose names begin in the same way.
_FORWARDED: Final = ("CF-Connecting-IP", "Forwarded", "True-Client-IP", "Via", "X-Client-IP", "X-Real-IP")
_FORWARDED_ALL: Final = "x-forwarded"


def is_local(request: Request) -> bool:
    """Whether ``request`` came straight from this machine, as far as that can be seen."""
    address = request.remote_address
    if not (isinstance(address, tuple) and is_loopback(address[0])):
        return False  # also a Unix socket: what connects to it is a proxy, as a rule
    headers = request.headers
    if "Host" not in headers:
        return False  # HTTP/1.0, as proxies speak it
    if any(name in headers for name in _FORWARDED) or any(name.lower().startswith(_FORWARDED_ALL) for name in headers):
        return False
    try:
        check_host(request, LOOPBACK_HOSTS)
    except InvalidHeader:
        return False  # the name of a foreign site that was made to resolve to this machine
    return True


def check_route_token(token: str) -> str:
    """``token``, if it can be one: visible ASCII of 16 characters or more, as it must fit a header.

    Raises ``ValueError``, without the token.
    """
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("the token must be visible ASCII, without spaces")
    if not limits.ROUTE_TOKEN <= len(token) <= limits.TOKEN_SIZE:
        raise ValueError(
            f"the token has {len(token)} characters and must have {limits.ROUTE_TOKEN} to {limits.TOKEN_SIZE}; "
            "secrets.token_urlsafe() makes one"
        )
    return token


def restricted(route: Callable[[Request], Response], token: str | None = None) -> Callable[[Request], Response]:
    """``route`` for those who may: see the top of this file.

    Args:
        route: what answers them.
        token: with it, whoever sends ``Authorization: Bearer <token>`` may, from anywhere, and nobody else (401);
            without, whoever asks from this machine (403 for others).

    Raises:
        ValueError: ``token`` is too short, too long, or not visible ASCII.
    """
    expected = None if token is None else check_route_token(token).encode()

    def answer(request: Request) -> Response:
        if expected is None:
            if not is_local(request):
                raise Refused("forbidden: this is for this machine alone", code="FORBIDDEN")
        elif not hmac.compare_digest(bearer_of(request).encode(), expected):
            raise Refused(
                "a token is required", status=401, code="TOKEN_REQUIRED", headers=(("WWW-Authenticate", "Bearer"),)
            )
        return route(request)

    return answer
