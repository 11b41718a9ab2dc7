"""Names of ``websockets.asyncio.client``, which plumews does not have yet: importing one says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..refused import CLIENT, missing

__all__: list[str] = []

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name
    __getattr__ = missing(__name__, {}, CLIENT)
