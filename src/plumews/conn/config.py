"""Options of a connection: one list, checked where the values are given.

All connections of a server share one frozen object. Options of the `websockets` package have the same names here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, TypedDict

from .. import limits
from ..constants import SendBehavior
from ..deflate.config import Deflate
from ..validation import check_count, check_read_limit, check_time
from .overflow import POLICIES, OverflowPolicy

__all__ = ["ConnConfig", "ConnOptions"]


@dataclass(frozen=True)
class ConnConfig:
    """Options of a connection; sizes are in bytes, times in seconds.

    Args:
        max_size: size of the largest message accepted, all fragments together (default 16 MiB). ``None`` is no limit.
        max_queue: received messages that wait for the handler before reading stops (default 256).
        max_queue_bytes: memory of these messages before reading stops (default 1 MiB). A message or chunk counts with
            its payload and 128 bytes for its objects. A text counts with 2 or 4 bytes a character if one needs them.
            The rest of a read waits as bytes.
        queue_size: messages that wait to be sent (default 64).
        queue_bytes: bytes of frames that wait to be sent (default 1 MiB). A larger message is accepted into an empty
            queue. In queues of more than 64 messages, each counts with 64 bytes more, and with 320 if it has a key.
        send_timeout: time for which ``SendBehavior.BLOCK`` waits for space (default 0.05, of a client ``None``).
            ``None`` waits until there is space or the connection closes.
        send_behavior: effect of a full send queue: ``BLOCK`` (default), ``DROP``, ``CLOSE``, ``DROP_OLDEST`` or
            ``CONFLATE`` (:class:`SendBehavior`).
        ping_interval: time between two pings (default 20). ``None`` turns the keepalive off.
        ping_timeout: time for a sign of life after a ping (default 10): a received byte, or an acknowledged one while
            the ping waits behind data.
        close_timeout: time for the closing handshake, after which the connection is cut (default 10).
        fragment_size: size of the fragments of a longer message (default 64 KiB).
        compression: ``"deflate"``, or a :class:`plumews.Deflate`, accepts the offers of permessage-deflate (RFC 7692).
            ``None`` (default) does not.
        unsent_bytes: approximate bytes of a connection that the kernel may hold before they are on the network. This
            buffer comes before the send queue and before every send behavior (Linux and macOS). On a Unix socket all
            bytes that the peer has not read count. ``None`` leaves the size to the kernel, which takes megabytes.
            ``"auto"`` (default) is 16 KiB under ``DROP_OLDEST`` and ``CONFLATE``, and ``None`` under the others,
            because their large messages would take up to half more time.
        unanswered_bytes: bytes that may be sent beyond the last ping that the peer has answered, within one frame. The
            bytes that proxies hold count, too. Pings travel with the data. A message that exceeds the bound waits in
            the send queue, so a peer gets no more than this in a round trip. ``None`` is no bound. ``"auto"`` (default)
            is 128 KiB under ``CONFLATE`` with a keepalive, else ``None``. The keepalive ends a peer that answers no
            ping.

    Raises:
        ValueError: a value is outside its range.
        TypeError: a value has the wrong type.
    """

    #: Meaning of ``compression="deflate"``, and the takeover of a `Deflate` that is about the messages sent.
    _deflate: ClassVar[Deflate] = Deflate()
    _takeover: ClassVar[str] = "server_takeover"

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
        if deflate is not None and getattr(deflate, self._takeover) and self.overflow.displaces:
            raise ValueError(
                f"SendBehavior.{self.send_behavior.name} drops messages that later ones would refer to: "
                f"use it without {self._takeover}"
            )

    @cached_property
    def overflow(self) -> OverflowPolicy:
        """Policy of :attr:`send_behavior`."""
        return POLICIES[self.send_behavior]

    @property
    def deflate(self) -> Deflate | None:
        """Settings of permessage-deflate; ``None`` without compression."""
        compression = self.compression
        if compression is None or isinstance(compression, Deflate):
            return compression
        if compression == "deflate":
            return self._deflate
        kind = repr(compression) if isinstance(compression, str) else type(compression).__name__
        raise TypeError(f"compression must be None, 'deflate' or a plumews.Deflate, not {kind}")

    @property
    def unsent_limit(self) -> int | None:
        """Bytes that the kernel may hold unsent, or ``None``; see ``unsent_bytes``."""
        if self.unsent_bytes != "auto":
            return self.unsent_bytes
        return limits.UNSENT_BYTES if self.overflow.displaces else None

    @property
    def unanswered_limit(self) -> int | None:
        """Bytes that may be sent beyond the last answered ping, or ``None``; see ``unanswered_bytes``."""
        if self.unanswered_bytes != "auto":
            return self.unanswered_bytes
        return limits.UNANSWERED_BYTES if self.overflow.uses_key and self.pong_wait is not None else None

    @property
    def pong_wait(self) -> float | None:
        """Seconds of silence after which a connection is dead: ``ping_interval`` and ``ping_timeout`` together."""
        if self.ping_interval is None or self.ping_timeout is None:
            return None
        return self.ping_interval + self.ping_timeout


class ConnOptions(TypedDict, total=False):
    """Options of a connection as keywords; see :class:`plumews.ConnConfig`."""

    max_size: int | None
    max_queue: int
    max_queue_bytes: int
    queue_size: int
    queue_bytes: int
    send_timeout: float | None
    send_behavior: SendBehavior
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float
    fragment_size: int
    compression: Deflate | Literal["deflate"] | None
    unsent_bytes: int | Literal["auto"] | None
    unanswered_bytes: int | Literal["auto"] | None
