"""Limits and defaults that bound the memory, time and work that a peer can cause.

Sizes are bytes and times seconds, unless a comment says otherwise. Tuning constants of one module stand in that module.
"""

from __future__ import annotations

import sys
from typing import Final

KiB: Final = 1024
MiB: Final = 1024 * KiB

#: Largest count of messages or bytes: compiled modules add two of them in machine integers.
COUNT_MOST: Final = sys.maxsize // 2

# --- messages -----------------------------------------------------------------------------------

#: Bytes of the largest accepted message, all fragments together. A smaller limit is wiser on the open internet.
READ_LIMIT: Final = 16 * MiB

#: Bytes of a fragment: longer messages are sent in fragments, so that pings are sent in between.
FRAGMENT_SIZE: Final = 64 * KiB

#: Bytes of the largest payload that is copied behind its header. Above it, two buffers are cheaper than the copy.
COPY_SIZE: Final = 16 * KiB

#: Bytes of the payload of a control frame (RFC 6455 section 5.5).
CONTROL_PAYLOAD: Final = 125

#: UTF-8 bytes of a close reason: the payload of a control frame without the two bytes of the code.
CLOSE_REASON: Final = CONTROL_PAYLOAD - 2

#: Frames of a message, besides the allowance per byte of the read limit.
FRAMES_BASE: Final = 1024

#: Bytes of the read limit that allow one more frame. 16 MiB in 64-byte fragments pass, a flood of empty fragments
#: does not.
BYTES_PER_FRAME: Final = 64


def max_frames(read_limit: int | None) -> int | None:
    """Return the most frames of one message under ``read_limit`` bytes. ``None`` is no limit."""
    if read_limit is None:
        return None
    return FRAMES_BASE + read_limit // BYTES_PER_FRAME


#: UTF-8 bytes of a text message under a text policy.
TEXT_LENGTH: Final = 1 * MiB

# --- queues -------------------------------------------------------------------------------------

#: Messages in the send queue of a connection.
QUEUE_SIZE: Final = 64

#: Bytes in the send queue of a connection. The limit that is reached first counts.
QUEUE_BYTES: Final = 1 * MiB

#: Seconds that a sender waits for space under ``SendBehavior.BLOCK``.
SEND_TIMEOUT: Final = 0.05

#: Received messages that wait for the handler before reading stops.
MAX_QUEUE: Final = 256

#: Received bytes that wait for the handler before reading stops.
MAX_QUEUE_BYTES: Final = 1 * MiB

#: Bytes that a received message or chunk takes besides its payload, for objects and queue entries. Measured: 90 to
#: 160.
RECEIVED_OVERHEAD: Final = 128

#: Bytes that a queued message takes besides its frame, and its key. Measured: 40 if many members get the same
#: message, else 90.
QUEUED_OVERHEAD: Final = 64
KEY_OVERHEAD: Final = 320

#: Messages and keys of a send queue whose overhead does not count, as it is negligible.
QUEUED_FREE: Final = 64

#: Bytes by which messages of one read may exceed the bytes received. The rest waits unparsed: 256 KiB of empty
#: messages would be 43,690 objects.
READ_SLACK: Final = 64 * KiB

#: Least bytes of a read if ``max_queue_bytes`` is smaller than the receive buffer.
READ_LEAST: Final = 4 * KiB

#: Bytes that the asyncio transport may buffer. The rest waits in the send queue, where the overflow policy applies.
TRANSPORT_HIGH_WATER: Final = 64 * KiB

#: Bytes that the kernel may buffer unsent under ``DROP_OLDEST`` and ``CONFLATE``. With it messages of 1 MiB take up
#: to half more time, and those of 64 KiB no more.
UNSENT_BYTES: Final = 16 * KiB

#: Bytes that may be sent beyond the last answered ping under ``CONFLATE``. A peer that reads 40 KB/s behind nginx is
#: 2.6 s behind. A peer 100 ms away gets 0.8 MB/s, 4,000 prices a second.
UNANSWERED_BYTES: Final = 128 * KiB

#: Bytes of the receive buffer that all connections of a loop share. A filled buffer is read again at once (libuv: up
#: to 32 times), before other connections. So it is larger than the data usually in flight.
READ_BUFFER: Final = 256 * KiB

# --- compression --------------------------------------------------------------------------------

#: Bits of the window: 4 KiB cover most repetitions in a message, for an eighth of the memory of 15 bits.
WINDOW_BITS: Final = 12

#: Memory level of a compressor: its tables take 16 KiB.
MEM_LEVEL: Final = 5

#: Bytes of the shortest message that is compressed: below it, compression costs more than it saves.
COMPRESS_LEAST: Final = 128

#: Bytes that are compressed at once, in one or two milliseconds: the most of a broadcast without ``compress=True``,
#: and of one piece of a message in pieces.
COMPRESS_PIECE: Final = 64 * KiB

#: Bytes of a long broadcast to members with context takeover: the clock is read after each member, as 64 of them
#: take longer than a time slice.
CONTEXT_LONG: Final = 2 * KiB

#: Seconds after which an idle compressor with context takeover is freed. The next message starts with an empty
#: context.
CONTEXT_IDLE: Final = 60.0

#: Bytes of partly inflated messages of all waiting connections of one loop. Beyond it, messages in progress are
#: completed before others begin: some kilobytes on the wire are megabytes here. It is as much as four messages of
#: the largest default size.
INFLATED_PARTS: Final = 64 * MiB

#: Bytes to which a message may always inflate, whatever ``Deflate.max_ratio`` is: so small a message is harmless.
RATIO_FREE: Final = 64 * KiB

# --- time ---------------------------------------------------------------------------------------

#: Seconds from the accepted connection to the open WebSocket, with TLS, request head and authentication.
OPEN_TIMEOUT: Final = 10.0

#: Seconds of the closing handshake. Then the connection is aborted.
CLOSE_TIMEOUT: Final = 10.0

#: Seconds between two pings.
PING_INTERVAL: Final = 20.0

#: Seconds from a ping to a sign of life. The interval and the timeout together are a pong wait of 30 s.
PING_TIMEOUT: Final = 10.0

#: Pong waits in which acknowledged bytes are a sign of life once the peer's kernel has the ping: the process may
#: have megabytes to read before it. A kernel accepts megabytes for a process that hangs.
ACKNOWLEDGED_WAITS: Final = 4

#: Seconds that the end of a connection waits for a handler that still answers earlier messages.
END_GRACE: Final = 1.0

# --- handshake ----------------------------------------------------------------------------------

#: Connections that the kernel holds until they are accepted: more than the usual 100, for reconnecting crowds.
BACKLOG: Final = 1024

#: Connections of one server. Idle ones take less than a gigabyte together.
MAX_CONNECTIONS: Final = 100_000

#: Connections in the opening handshake: more than a second of work, so that a reconnecting crowd is accepted. Two
#: addresses with as many connections as they may have (see below) do not fill it.
MAX_OPENING: Final = 10_000

#: Connections of one address on the internet. An office or a campus behind one address has thousands. More are an
#: attack, or a proxy that should be listed as trusted.
CONNECTIONS_PER_ADDRESS: Final = 4096

#: New connections a second of one address on the internet, in the long run: some 3 % of a core.
ACCEPT_RATE_PER_ADDRESS: Final = 200.0

#: Seconds of the rate of an address that may come at once: an office whose network is back.
ADDRESS_BURST_TIME: Final = 10.0

#: Addresses without a connection whose rate is still known: some 30 MiB.
IDLE_ADDRESSES: Final = 65_536

#: Seconds in ``Retry-After`` if the time until there is capacity is unknown.
RETRY_AFTER: Final = 5

#: Seconds in which a rejected client can read the response.
REJECTED_SOCKET_TIME: Final = 1.0

#: Sockets of rejected clients that wait at once. More are closed, and some get a reset instead of the response.
REJECTED_SOCKETS: Final = 256

#: Bytes of the request line and the headers together.
HEAD_SIZE: Final = 16 * KiB

#: Range of the option ``max_head``: browsers send more than the least, and no head needs more than the most.
HEAD_SIZE_LEAST: Final = 1 * KiB
HEAD_SIZE_MOST: Final = 1 * MiB

#: Header lines of a request. A larger ``max_head`` allows more in proportion.
HEADER_COUNT: Final = 100

#: Bytes that are kept of the body of a response that refuses a client, and seconds that they are waited for.
RESPONSE_BODY: Final = 64 * KiB
RESPONSE_BODY_TIME: Final = 1.0

#: Interim responses (1xx) that a client passes over. Real servers send one or two.
INTERIM_RESPONSES: Final = 16

#: Fields of a query string.
QUERY_FIELDS: Final = 100

#: Trusted proxies on the way of a request. Real chains have two or three.
FORWARDED_HOPS: Final = 32

# --- hub ----------------------------------------------------------------------------------------

#: Cooperative workers that carry broadcasts.
WORKERS: Final = 4

#: Broadcasts that may wait for a worker.
JOB_QUEUE_SIZE: Final = 1024

#: Seconds of a time slice, after which reads, pings and other rooms continue.
FAN_OUT_SLICE: Final = 0.004

#: Bytes of a room name.
ROOM_NAME: Final = 128

#: Rooms of one connection.
ROOMS_PER_CONNECTION: Final = 100

#: Range of accept rates. Less is one connection in a quarter of an hour, more is beyond what a loop can open.
ACCEPT_RATE_LEAST: Final = 0.001
ACCEPT_RATE_MOST: Final = 1_000_000

#: Seconds of the accept rate that may come at once.
ACCEPT_BURST_TIME: Final = 2.0

#: Seconds that a broadcast waits for a full member without a send timeout.
BROADCAST_WAIT: Final = 0.1

#: Seconds from closing a connection with a full queue to aborting it if the peer reads nothing meanwhile. A dead
#: peer must not hold memory of the kernel. A slow peer reads something.
EVICT_TIMEOUT: Final = 2.0

#: Bytes in the send queues of all members of a hub together. 0 is no limit: each queue is bounded already, and a
#: broadcast is in memory once, in however many queues.
MAX_QUEUED_BYTES: Final = 0

#: Messages in the history of a room: enough for a page that lost its network for a minute.
HISTORY_MESSAGES: Final = 100

#: Seconds that they are kept: after a longer absence clients reload anyway.
HISTORY_AGE: Final = 300.0

#: Bytes of the history of a room, as many as of one send queue.
HISTORY_ROOM_BYTES: Final = QUEUE_BYTES

#: Bytes that objects take: for a kept message besides its frame, and for the history of a room besides its messages.
HISTORY_OVERHEAD: Final = 272
HISTORY_ROOM_OVERHEAD: Final = 1600

#: Rooms of one hub with a history, with or without members.
HISTORY_ROOMS: Final = 10_000

#: Bytes of all histories of a hub together.
HISTORY_BYTES: Final = 64 * MiB

#: Characters of each half of a position that a client sends. Ours have 16 at most.
POSITION_PART: Final = 32

#: Names that one counter distinguishes, such as error codes, which may be those of an application.
COUNTED_NAMES: Final = 100

#: Seconds in which an event loop answers a scrape on another thread. Prometheus gives up after 10 s.
SCRAPE_TIMEOUT: Final = 5.0

#: Seconds in which send queues drain and closing handshakes end when a hub or a server stops.
SHUTDOWN_TIMEOUT: Final = 10.0

#: Connections closed a second when a hub or a server stops: another server accepts as many unnoticed.
CLOSES_PER_SECOND: Final = 2000

#: Share of a shutdown in which connections are closed. The rest is for the answers.
SPREAD_SHARE: Final = 0.2

#: Share of a shutdown in which broadcasts reach their members, and full members may make space.
SETTLE_SHARE: Final = 0.5

#: Seconds over which members of a stopping hub are told to reconnect: 10,000 of them make 2,000 handshakes a second.
RECONNECT_IN: Final = 5.0

#: Most seconds after which a client is told to reconnect.
LONGEST_RECONNECT: Final = 3600.0

# --- authentication -----------------------------------------------------------------------------

#: Bytes of the shortest HS256 key: a key shorter than the hash is weaker than the signature (RFC 7518 section 3.2).
SECRET_SIZE: Final = 32

#: Bytes of the body of a request to a route, such as a message for all members.
ROUTE_BODY: Final = 1 * MiB

#: Characters of the shortest token of a route: a shorter one could be guessed. 16 characters of base64 are 96 bits.
ROUTE_TOKEN: Final = 16

#: Bytes of the longest token that is checked.
TOKEN_SIZE: Final = 8 * KiB

#: Bytes of the longest password that is hashed.
PASSWORD_SIZE: Final = 4 * KiB

#: Rounds of PBKDF2-HMAC-SHA512: about a tenth of a second of one core.
PASSWORD_ROUNDS: Final = 210_000

#: Revoked users and tokens that are kept: some 30 MB. Beyond it revoking raises an error instead of forgetting the
#: oldest.
REVOCATIONS: Final = 100_000

#: Range of the rounds of a stored hash: fewer are quick to guess, more would occupy a core for seconds.
PASSWORD_COSTS: Final = (100_000, 2_000_000)

#: Code points of a password: 8 at least, as NIST SP 800-63B asks for, and 1024 at most.
PASSWORD_MIN_LENGTH: Final = 8
PASSWORD_MAX_LENGTH: Final = 1024

#: Passwords hashed at once in the process: each takes a core, and there is other work. As many calls of a plain
#: ``authorize_room`` run beside them.
PASSWORD_HASHES: Final = 2

#: Passwords that are hashed or wait for it, for one server: some 5 s of work for two cores, half the time of a
#: handshake.
PASSWORD_QUEUE: Final = 100

#: Valid passwords that are remembered, 100 bytes each: more than there are busy rooms.
PASSWORD_MEMORY: Final = 10_000

#: Wrong passwords that an address has free, as people behind one address mistype, and seconds until it has one more.
ATTEMPTS_BURST: Final = 20
ATTEMPTS_INTERVAL: Final = 3.0

#: Addresses whose failures are remembered: some 3 MB.
ATTEMPTS_ADDRESSES: Final = 16_384

# --- logs -----------------------------------------------------------------------------------------

#: Bytes of a value from outside in a log.
LOG_VALUE: Final = 200

#: Characters of a log line, without the context of the connection.
LOG_LINE: Final = 2000

#: Log lines a second, whatever 10,000 bad clients do: as many as a person can read.
LOG_LINES: Final = 10

#: Lines of the last second from which on a line of a repeated kind is left out.
LOG_REPEATED: Final = 3
