"""What one connection is allowed and how it behaves, checked once (layer 2).

One frozen object is shared by all connections of a server. The names are those of the `websockets`
package where it has the thing and the seed's where only the seed has it. A wrong value is an error where
it is given, not at the first handshake (section 8 point 31 of the seed's review).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from .. import limits
from ..constants import SendBehavior
from ..deflate.config import Deflate
from ..validation import check_count, check_read_limit, check_time
from .overflow import POLICIES, OverflowPolicy

__all__ = ["ConnConfig"]


@dataclass(frozen=True)
class ConnConfig:
    """The settings of a connection; sizes in bytes, times in seconds.

    Args:
        max_size: largest message accepted, all fragments together (default 16 MiB); ``None`` is no limit.
        max_queue: received messages that wait for the handler before reading stops (default 256).
        max_queue_bytes: the same in bytes of memory (default 1 MiB): the payload of each message or chunk, 2 or 4 bytes
            for each character of a text that needs them, and 128 bytes for its objects. Of one read only what finds a
            place is made into messages; the rest waits as bytes.
        queue_size: messages that wait to be sent (default 64).
        queue_bytes: the same in bytes of frames (default 1 MiB); a larger message is taken when nothing else waits. Of
            more than 64 messages each counts with 64 bytes more, and with 320 if it has a key.
        send_timeout: how long ``SendBehavior.BLOCK`` waits for space (default 0.05); ``None`` waits until
            there is space or the connection closes.
        send_behavior: what a full send queue does: ``BLOCK`` (default), ``DROP``, ``CLOSE``, ``DROP_OLDEST`` or
            ``CONFLATE``; see :class:`SendBehavior`.
        ping_interval: between two pings (default 20); ``None`` turns the keepalive off.
        ping_timeout: for a sign of life after a ping (default 10): a received byte, or an acknowledged one while the
            ping waits behind data.
        close_timeout: for the closing handshake, then the connection is cut (default 10).
        fragment_size: a longer message is sent in fragments of this size (default 64 KiB).
        compression: ``"deflate"``, or a :class:`plumews.Deflate`, offers permessage-deflate (RFC 7692) to those who
            ask for it; ``None`` (default) does not.
        unsent_bytes: what the kernel may hold of a connection that is not on the network yet, about: its buffer stands
            in front of the send queue and of every send behavior (Linux and macOS; on a Unix socket everything that the
            peer has not read counts). ``None`` leaves it to the kernel, which takes megabytes. ``"auto"`` (default) is
            16 KiB under ``DROP_OLDEST`` and ``CONFLATE``, and ``None`` under the others, whose large messages would
            cost up to half more time.
        unanswered_bytes: what may be sent beyond the last ping that the peer has answered, give or take a frame: what
            proxies hold counts, too. Pings travel with the data; what does not fit waits in the send queue. A peer gets
            no more than this in a round trip. ``None`` is no bound. ``"auto"`` (default) is 128 KiB under ``CONFLATE``
            with a keepalive, else ``None``. A peer that answers no ping is ended by the keepalive.

    Raises:
        ValueError: a value is outside its range. TypeError: it is of the wrong type.
    """

    max_size: int | None = limits.READ_LIMIT
    max_queue: int = limits.MAX_QUEUE
    max_queue_bytes: int = limits.MAX_QUEUE_BYTES
    queue_size: int = limits.QUEUE_SIZE
    queue_bytes: int = limits.QUEUE_BYTES
    send_timeout: float | None = limits.SEND_TIMEOUT
    send_behavior: SendBehavior = SendBehavior.BLOCK
    ping_interval: float | None = limits.PING_INTERVAL
    ping_timeout: float | None = limits.PING_TIMEOUT
    close_timeout: float = limits.CLOSE_TIMEOUT
    fragment_size: int = limits.FRAGMENT_SIZE
    compression: Deflate | Literal["deflate"] | None = None
    unsent_bytes: int | Literal["auto"] | None = "auto"
    unanswered_bytes: int | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        check_read_limit(self.max_size, "max_size")
        for name in ("max_queue", "max_queue_bytes", "queue_size", "queue_bytes", "fragment_size"):
            check_count(name, getattr(self, name))
        if self.send_timeout is not None:
            check_time("send_timeout", self.send_timeout, zero=True)
        check_time("close_timeout", self.close_timeout)
        if not isinstance(self.send_behavior, SendBehavior):
            names = [behavior.name for behavior in SendBehavior]
            choices = f"{', '.join(names[:-1])} or {names[-1]}"
            raise TypeError(f"send_behavior must be SendBehavior.{choices}, not {self.send_behavior!r}")
        for name, none in (("ping_interval", "None sends no pings"), ("ping_timeout", "None waits for ever")):
            value = getattr(self, name)
            if value == 0 and not isinstance(value, bool):
                raise ValueError(f"{name} must be more than 0 seconds, not 0: {none}")
            if value is not None:
                check_time(name, value)
        for name in ("unsent_bytes", "unanswered_bytes"):
            value = getattr(self, name)
            if isinstance(value, str) and value != "auto":
                raise ValueError(f"{name} must be an int, 'auto' or None, not {value!r}")
            if value is not None and value != "auto":
                if value == 0 and not isinstance(value, bool):
                    raise ValueError(f"{name} must be at least 1, not 0: None is no bound")
                check_count(name, value)
        if isinstance(self.unanswered_bytes, int) and self.pong_wait is None:
            raise ValueError(
                "unanswered_bytes needs ping_interval and ping_timeout: without a keepalive nothing ends a peer that "
                "answers no ping"
            )
        deflate = self.deflate
        if deflate is not None and deflate.server_takeover and self.overflow.displaces:
            raise ValueError(
                f"SendBehavior.{self.send_behavior.name} drops messages that later ones would refer to: "
                "use it without server_takeover"
            )

    @cached_property
    def overflow(self) -> OverflowPolicy:
        """Policy for a full send queue."""
        return POLICIES[self.send_behavior]

    @property
    def deflate(self) -> Deflate | None:
        """How to compress, if at all."""
        compression = self.compression
        if compression is None or isinstance(compression, Deflate):
            return compression
        if compression == "deflate":
            return _DEFLATE
        kind = repr(compression) if isinstance(compression, str) else type(compression).__name__
        raise TypeError(f"compression must be None, 'deflate' or a plumews.Deflate, not {kind}")

    @property
    def unsent_limit(self) -> int | None:
        """Bytes that the kernel may hold and has not sent."""
        if self.unsent_bytes != "auto":
            return self.unsent_bytes
        return limits.UNSENT_BYTES if self.overflow.displaces else None

    @property
    def unanswered_limit(self) -> int | None:
        """Bytes that may be sent beyond the last answered ping."""
        if self.unanswered_bytes != "auto":
            return self.unanswered_bytes
        return limits.UNANSWERED_BYTES if self.overflow.uses_key and self.pong_wait is not None else None

    @property
    def pong_wait(self) -> float | None:
        """Seconds of silence at which a connection is dead: the ping interval and the ping timeout."""
        if self.ping_interval is None or self.ping_timeout is None:
            return None
        return self.ping_interval + self.ping_timeout


#: ``compression="deflate"``.
_DEFLATE = Deflate()
