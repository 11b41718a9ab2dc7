"""All contests, for the command and for pytest-benchmark."""

from __future__ import annotations

from . import incoming, masks, outgoing, texts
from .contest import Contest


def contests(words: str = "") -> list[Contest]:
    """Those with ``words`` in their name, in the order of the issue: masks, texts, frames in, frames out."""
    found = [*masks.contests(), *texts.contests(), *incoming.contests(), *outgoing.contests()]
    return [contest for contest in found if words in contest.name]
