"""All contests, for the command and for pytest-benchmark."""

from __future__ import annotations

from . import incoming, masks, outgoing, texts
from .contest import Contest


def contests() -> list[Contest]:
    """In the order of the issue: masks, texts, frames in, frames out."""
    return [*masks.contests(), *texts.contests(), *incoming.contests(), *outgoing.contests()]
