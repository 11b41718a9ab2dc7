"""Names of ``websockets.sync.server``, which plumews does not have: importing one says what there is instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..refused import BLOCKING, missing

__all__: list[str] = []

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name
    __getattr__ = missing(__name__, {}, BLOCKING)
