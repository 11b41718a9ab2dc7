"""The page of the room server, as routes (layer 5).

Plain files that ship with the package; nothing is fetched from elsewhere, and the browser is told to allow nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Final

from .http11 import Request, Response
from .routes import static_route

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


def page_routes() -> dict[str, Callable[[Request], Response]]:
    """The page at ``/`` and what it needs."""
    folder = resources.files(__package__) / "page"
    return {
        path: static_route((folder / name).read_bytes(), content_type, _POLICY)
        for path, (name, content_type) in _FILES.items()
    }
