"""What went wrong in code that was given a secret, for the log (layer 0).

An application's code may put what it was given into its exception: ``sessions[token]`` raises a ``KeyError`` whose text
is the token. Invariant: no secret stands in what is returned, however it came in.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator

__all__ = ["traceback_without"]


def traceback_without(exc: BaseException, secrets: Iterable[str | None]) -> str:
    """The traceback of ``exc``; where an exception in it tells one of ``secrets``, code and class alone."""
    parts = {part for secret in secrets if secret for part in _parts(secret)}
    if any(part in text for text in _texts(exc) for part in parts):
        lines = "".join(traceback.format_tb(exc.__traceback__))
        return f"{lines}{type(exc).__qualname__} (its text is left out: it holds what the client sent)"
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


def _texts(exc: BaseException) -> Iterator[str]:
    """What is said by ``exc``, and by those that it came from or holds."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield "".join(traceback.format_exception_only(type(one), one))
            waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _parts(secret: str) -> Iterator[str]:
    """How a secret may stand in a text: as it is, as ``repr`` writes it, and a token in its parts."""
    yield secret
    yield repr(secret)[1:-1]
    yield repr(secret.encode("utf-8", "surrogatepass"))[2:-1]
    if secret.count(".") == 2:  # a JWT
        yield from (part for part in secret.split(".") if part)
