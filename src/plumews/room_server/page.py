"""Browser page of the room server, as routes.

The page consists of files of this package. Its content security policy forbids all other sources.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Final

from ..http11.models import Request, Response
from ..server.routes import static_route

__all__ = ["page_routes"]

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/rooms.js": ("rooms.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}

_POLICY: Final = (
    "Content-Security-Policy",
    (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
)


def page_routes(*, recovery: bool = False) -> dict[str, Callable[[Request], Response]]:
    """Return the routes of the page at ``/`` and its files. True for ``recovery`` makes it use ``?since=``."""
    folder = resources.files(__package__) / "static"
    files = {path: (folder / name).read_bytes() for path, (name, _) in _FILES.items()}
    if recovery:
        files["/"] = files["/"].replace(b"<html ", b"<html data-recovery ", 1)
    return {path: static_route(files[path], content_type, _POLICY) for path, (_, content_type) in _FILES.items()}
