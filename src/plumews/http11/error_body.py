"""The JSON that tells a client why its request was refused (layer 2).

``{"error": {"code", "message", "status", "category", "type"}, "request_id"}``: the seed's words, so that a program
which knows them from there reads ours. Invariant: ``code`` says most and is the stable one; ``category`` and ``type``
follow from it and from the status, also for refusals of the application.
"""

from __future__ import annotations

from typing import Final

from ..constants import ErrorCode
from ..errors import InvalidHandshake

__all__ = ["error_body"]

_CATEGORIES: Final = {
    401: "auth_error",
    403: "auth_error",
    408: "timeout_error",
    429: "rate_limit_error",
}

_TYPES: Final = {
    401: "unauthorized_request",
    403: "forbidden_request",
    404: "resource_not_found",
    405: "method_not_allowed",
    408: "timeout_failure",
    409: "resource_conflict",
    410: "resource_gone",
    413: "value_out_of_range",
    429: "rate_limited",
    431: "value_out_of_range",
    501: "not_implemented",
    502: "bad_gateway",
    503: "service_unavailable",
}

_TYPES_OF_CODES: Final = {code.value: code.type for code in ErrorCode if code.type}


def error_body(exc: InvalidHandshake, request_id: str | None = None) -> dict[str, object]:
    """What the answer to a refused request says; ``request_id`` is the id of its connection, which is for the log."""
    server = exc.status >= 500
    error = {
        "code": exc.code,
        "message": str(exc),
        "status": exc.status,
        "category": _CATEGORIES.get(exc.status, "server_error" if server else "client_error"),
        "type": _TYPES_OF_CODES.get(exc.code)
        or _TYPES.get(exc.status, "internal_error" if server else "validation_failure"),
    }
    return {"error": error} if request_id is None else {"error": error, "request_id": request_id}
