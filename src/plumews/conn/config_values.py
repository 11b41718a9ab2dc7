"""Values that each new connection takes from its configuration.

Compiled with Cython. Most connections have the configuration of the one before: its values are read once for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import limits
from .receive_queue import empty_queue

if TYPE_CHECKING:
    from .config import ConnConfig

__all__ = ["ConfigValues", "values_of"]


class ConfigValues:
    """Values of one :class:`plumews.ConnConfig`, and what follows from them."""

    __slots__ = (
        "config",
        "inbox",
        "max_frames",
        "max_size",
        "ping_period",
        "pong_wait",
        "queue_bytes",
        "queue_size",
        "quick_size",
        "read_most",
        "unanswered_limit",
        "unsent_limit",
    )

    def __init__(self, config: ConnConfig) -> None:
        self.config = config
        #: Receive queue of connections that have received nothing.
        self.inbox = empty_queue(config.max_queue, config.max_queue_bytes)
        self.max_size = config.max_size
        self.max_frames = limits.max_frames(config.max_size)
        self.ping_period = config.ping_interval
        self.pong_wait = config.pong_wait
        self.queue_size = config.queue_size
        self.queue_bytes = config.queue_bytes
        #: A message up to this size leaves as one frame in one buffer, whatever characters it has.
        self.quick_size = min(config.fragment_size, limits.COPY_SIZE)
        most = max(config.max_queue_bytes, limits.READ_LEAST)
        #: Bytes of one read; 0 for the whole receive buffer.
        self.read_most = most if most < limits.READ_BUFFER else 0
        self.unanswered_limit = config.unanswered_limit
        self.unsent_limit = config.unsent_limit


#: Values of the newest connection.
_newest: ConfigValues | None = None


def values_of(config: ConnConfig) -> ConfigValues:
    """Return the values of ``config``."""
    global _newest
    values = _newest
    if values is None or values.config is not config:
        values = _newest = ConfigValues(config)
    return values
