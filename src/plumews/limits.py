"""Every default with its unit and its reason (layer 0).

A number that bounds memory, time or work stands here and nowhere else, so that one page shows what a
peer can make this library spend. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import sys
from typing import Final

KiB: Final = 1024
MiB: Final = 1024 * KiB

#: The largest count of anything, messages or bytes: what is compiled adds such numbers in the integers of the machine.
COUNT_MOST: Final = sys.maxsize // 2

# --- messages -----------------------------------------------------------------------------------

#: Largest message accepted, all fragments together. The seed's default; smaller is wiser on the open net.
READ_LIMIT: Final = 16 * MiB

#: Messages sent above this size leave in fragments of it, so that pings get in between. The seed's.
FRAGMENT_SIZE: Final = 64 * KiB

#: Payloads up to this size are copied behind their header; above it, two buffers are cheaper than the copy.
COPY_SIZE: Final = 16 * KiB

#: Payload of a control frame (RFC 6455 section 5.5).
CONTROL_PAYLOAD: Final = 125

#: UTF-8 bytes of a close reason: a control payload less the two bytes of the code.
CLOSE_REASON: Final = CONTROL_PAYLOAD - 2

#: Frames a message may always have, before the allowance per byte of the read limit.
FRAMES_BASE: Final = 1024

#: One more frame per this many bytes of limit: 16 MiB in 64-byte fragments passes, a flood of empty
#: fragments does not.
BYTES_PER_FRAME: Final = 64


def max_frames(read_limit: int | None) -> int | None:
    """How many frames one message may have under ``read_limit`` bytes; ``None`` is no bound."""
    if read_limit is None:
        return None
    return FRAMES_BASE + read_limit // BYTES_PER_FRAME


#: UTF-8 bytes of a text message under a text policy. The seed's.
TEXT_LENGTH: Final = 1 * MiB

# --- queues -------------------------------------------------------------------------------------

#: Messages waiting to be sent on one connection. The seed's.
QUEUE_SIZE: Final = 64

#: Bytes waiting to be sent on one connection, whichever bound is met first.
QUEUE_BYTES: Final = 1 * MiB

#: How long a sender waits for space under ``SendBehavior.BLOCK``. The seed's 50 ms.
SEND_TIMEOUT: Final = 0.05

#: Received messages waiting for the handler, before reading stops.
MAX_QUEUE: Final = 256

#: Received bytes waiting for the handler, before reading stops.
MAX_QUEUE_BYTES: Final = 1 * MiB

#: Bytes that a received message, or a chunk of one, takes besides its payload: the headers of its objects, and a place
#: in a queue. Measured 90 to 160.
RECEIVED_OVERHEAD: Final = 128

#: The same for a message that waits to be sent, 40 where many are sent the same and 90 else, and for a key by which a
#: newer one replaces it.
QUEUED_OVERHEAD: Final = 64
KEY_OVERHEAD: Final = 320

#: So many messages of one send queue, and keys, have their objects free: it is as good as nothing.
QUEUED_FREE: Final = 64

#: The messages of one read may take so many bytes more than they were received in. What is beyond waits unread: 256 KiB
#: of empty messages would be 43,690 objects.
READ_SLACK: Final = 64 * KiB

#: The least that is read at once where `max_queue_bytes` is less than the receive buffer.
READ_LEAST: Final = 4 * KiB

#: Bytes the transport may hold before our own queue takes over, so that the policies mean something.
TRANSPORT_HIGH_WATER: Final = 64 * KiB

#: What the kernel may hold of a connection that is not on the network, where old messages give way to newer ones. With
#: it messages of 1 MiB take a fifth to a half more time, and those of 64 KiB no more.
UNSENT_BYTES: Final = 16 * KiB

#: What may be sent beyond the last answered ping, where only the newest message counts. A peer that reads 40 KB/s
#: behind nginx is 2.6 s behind, and one that is 100 ms away gets 0.8 MB/s: 4,000 prices a second.
UNANSWERED_BYTES: Final = 128 * KiB

#: The receive buffer that all connections of a loop share. One that is filled is read again at once, before other
#: connections have their turn (libuv: up to 32 times), so it is larger than what a client usually has on its way.
READ_BUFFER: Final = 256 * KiB

# --- compression --------------------------------------------------------------------------------

#: Bits of the window: 4 KiB hold most of what repeats in a message, for an eighth of the memory of the most, 15.
WINDOW_BITS: Final = 12

#: Memory level of a compressor: 16 KiB for its tables.
MEM_LEVEL: Final = 5

#: Shorter messages leave as they are: what compressing saves is less than what it costs.
COMPRESS_LEAST: Final = 128

#: Bytes that are compressed at once, in a millisecond or two: the most of a broadcast without ``compress=True``, and of
#: one piece of a message in pieces.
COMPRESS_PIECE: Final = 64 * KiB

#: Bytes of missed messages with their compressed encodings, which one hub keeps for all members that come back.
RECOVERED_ENCODINGS: Final = 4 * MiB

#: Members with takeover compress what is broadcast one by one: of messages this long the loop looks at the clock after
#: each of them, for 64 take more than a slice.
CONTEXT_LONG: Final = 2 * KiB

#: A compressor with takeover that had nothing to do for so long is given up; the next message begins anew.
CONTEXT_IDLE: Final = 60.0

#: Bytes of messages that are inflated in part, of all waiting connections of one loop. Beyond it messages in progress
#: are completed before others begin: some kilobytes on the wire are megabytes here. It takes as much as four messages
#: of the largest size by default.
INFLATED_PARTS: Final = 64 * MiB

#: A message that `Deflate.max_ratio` bounds may always inflate to this: what is that small harms nobody.
RATIO_FREE: Final = 64 * KiB

# --- time ---------------------------------------------------------------------------------------

#: From the accepted connection to the open WebSocket: TLS, request head and authentication together.
OPEN_TIMEOUT: Final = 10.0

#: From the beginning of the closing handshake to its end; then the connection is cut.
CLOSE_TIMEOUT: Final = 10.0

#: Between two pings. The seed's.
PING_INTERVAL: Final = 20.0

#: Share of the ping interval by which each ping is shifted, so that connections do not ping in step.
PING_JITTER: Final = 0.1

#: For any sign of life after a ping; with the interval it makes the seed's pong wait of 30 s.
PING_TIMEOUT: Final = 10.0

#: How many pong waits acknowledged bytes are a sign of life once the peer's kernel has the ping: the process may still
#: have megabytes to read before it. A kernel takes megabytes for a process that hangs.
ACKNOWLEDGED_WAITS: Final = 4

#: Seconds between two looks whether the peer of a connection that is not read from has gone.
END_LOOK: Final = 1.0

#: How long the end of a connection waits for a handler that has earlier messages to answer.
END_GRACE: Final = 1.0

# --- handshake ----------------------------------------------------------------------------------

#: Connections that the kernel holds until they are accepted; more than the usual 100, for reconnecting crowds.
BACKLOG: Final = 1024

#: Free ports that are tried until one is free on all addresses of a server.
PORT_ATTEMPTS: Final = 100

#: Connections that are accepted in one wake-up, some 3 ms of work: those that are open want their turn, too.
ACCEPTS_AT_ONCE: Final = 64

#: Connections of one server. Idle ones take less than a gigabyte then; who expects more has planned for it.
MAX_CONNECTIONS: Final = 100_000

#: Connections whose opening handshake is not done. That many are a second's work and more, so that a crowd that comes
#: back gets in, and two addresses with all that they may have (see below) do not fill it.
MAX_OPENING: Final = 10_000

#: Connections of one address on the internet: an office or a campus behind one address has thousands, and more than
#: these from one place are an attack, or a proxy that should be named as one.
CONNECTIONS_PER_ADDRESS: Final = 4096

#: New connections a second of one address on the internet, in the long run: some 3 % of a core.
ACCEPT_RATE_PER_ADDRESS: Final = 200.0

#: How many come at once from one address, in seconds of its rate: an office whose network is back.
ADDRESS_BURST_TIME: Final = 10.0

#: Addresses without a connection of which is known how fast they came; some 30 MiB.
IDLE_ADDRESSES: Final = 65_536

#: Seconds after which to come again, where nobody can know when there will be room.
RETRY_AFTER: Final = 5

#: How long a client that is turned away may take to read why.
LINGER_TIME: Final = 1.0

#: How many of them are waited for at once; beyond that they are cut, and some get a reset in place of the answer.
LINGERING: Final = 256

#: How often it is looked whether they have gone.
LINGER_EVERY: Final = 0.1

#: How long nothing is accepted when there are no descriptors: short enough to be back at once when there are some.
ACCEPT_PAUSE: Final = 0.1

#: A server logs at most one line in this time about connections that it cannot accept.
ACCEPT_LOG_EVERY: Final = 1.0

#: Request line and headers together. Rivals allow up to 1 MiB to strangers.
HEAD_SIZE: Final = 16 * KiB

#: What an application may set instead: less than what a browser sends is a slip, more is no head.
HEAD_SIZE_LEAST: Final = 1 * KiB
HEAD_SIZE_MOST: Final = 1 * MiB

#: Header lines in one request; a larger head may have more in the same proportion.
HEADER_COUNT: Final = 100

#: Fields of a query string.
QUERY_FIELDS: Final = 100

#: Trusted proxies that a request has come through; real chains have two or three.
FORWARDED_HOPS: Final = 32

# --- hub ----------------------------------------------------------------------------------------

#: Lanes that carry broadcasts. The seed's.
WORKERS: Final = 4

#: Broadcasts that may wait for a lane. The seed's.
JOB_QUEUE_SIZE: Final = 1024

#: How long one fan-out may hold the loop before reads, pings and other rooms get their turn.
FAN_OUT_SLICE: Final = 0.004

#: Characters of a room name.
ROOM_NAME: Final = 128

#: Rooms one connection may be in.
ROOMS_PER_CONNECTION: Final = 100

#: Connections of one user that get a message at once, as by a send to each; for more it is a fan-out like any other.
USER_CONNECTIONS: Final = 64

#: Accept rates beyond these are slips: one connection in a quarter of an hour, and more than a loop can open.
ACCEPT_RATE_LEAST: Final = 0.001
ACCEPT_RATE_MOST: Final = 1_000_000

#: New connections that are accepted at once, in seconds of the accept rate. The seed's later ones.
ACCEPT_BURST_TIME: Final = 2.0

#: How long a broadcast waits for a full member that has no send timeout of its own.
BROADCAST_WAIT: Final = 0.1

#: From the closing of a connection whose queue is full to its end, if the peer takes nothing at all meanwhile: it is as
#: good as gone, and what the kernel holds for it is memory that others need. Who is only slow takes something.
EVICT_TIMEOUT: Final = 2.0

#: Bytes that may wait in the queues of all members of a hub together; 0 is no limit. Each queue is bounded already, and
#: what is broadcast waits once in memory, however many queues hold it: a sum is for those who know their traffic.
MAX_QUEUED_BYTES: Final = 0

#: Changes of a room's member count, and of its users, are told at most this often.
COUNT_EVERY: Final = 0.1

#: Messages of a room that are kept for those who come back: a page that lost its network for a minute.
HISTORY_MESSAGES: Final = 100

#: How long they are kept; who was away longer loads anew anyway.
HISTORY_AGE: Final = 300.0

#: Bytes of them; as much as one send queue would take.
HISTORY_ROOM_BYTES: Final = QUEUE_BYTES

#: Bytes that a kept message takes besides its frame, and the history of a room besides its messages: their objects.
HISTORY_OVERHEAD: Final = 272
HISTORY_ROOM_OVERHEAD: Final = 1600

#: Rooms of one hub that have a history, with members or without.
HISTORY_ROOMS: Final = 10_000

#: Bytes of all histories of a hub together.
HISTORY_BYTES: Final = 64 * MiB

#: Characters of each half of a position that a client sends back; ours have 16 and, in a lifetime, no more.
POSITION_PART: Final = 32

#: Different names that one counter keeps apart, such as the words of refusals, which may be an application's.
COUNTED_NAMES: Final = 100

#: The table of rooms on the page is made at most this often, however many look at it.
ROOMS_EVERY: Final = 1.0

#: Rooms in that table, the largest first: a page with more helps nobody.
ROOMS_SHOWN: Final = 100

#: For an event loop to answer a scrape that comes on another thread; Prometheus gives up after 10 s.
SCRAPE_TIMEOUT: Final = 5.0

#: For the members' queues to drain and their closing handshakes to end when a hub or a server stops.
SHUTDOWN_TIMEOUT: Final = 10.0

#: How many connections are closed in a second when a hub or a server stops, unless it is told how long to take: what
#: another server can take in without its own clients noticing.
CLOSES_PER_SECOND: Final = 2000

#: The share of a shutdown's time that this may take; the rest is for the answers.
SPREAD_SHARE: Final = 0.2

#: Connections are closed in slices this many seconds apart.
CLOSE_SLICE: Final = 0.02

#: The share of a shutdown's time in which broadcasts reach their members, and full members may make room.
SETTLE_SHARE: Final = 0.5

#: Members of a hub that stops are told to come back within this time, each at its own moment: 10,000 make 2,000
#: handshakes a second.
RECONNECT_IN: Final = 5.0

#: For the connections that are no members of the hub, when its members are gone: those that watch a number.
SHUTDOWN_REST: Final = 1.0

#: Nobody is told to come back later than this.
LONGEST_RECONNECT: Final = 3600.0

# --- authentication -----------------------------------------------------------------------------

#: An HS256 key shorter than its hash is weaker than the signature (RFC 7518 section 3.2).
SECRET_SIZE: Final = 32

#: The body of a request to a route, such as a message for everybody (the seed's bound).
ROUTE_BODY: Final = 1 * MiB

#: A shorter token that opens a route could be guessed: 16 characters of base64 are 96 bits.
ROUTE_TOKEN: Final = 16

#: A longer token is not looked at.
TOKEN_SIZE: Final = 8 * KiB

#: A longer password is not hashed.
PASSWORD_SIZE: Final = 4 * KiB

#: PBKDF2-HMAC-SHA512, about a tenth of a second of one core.
PASSWORD_ROUNDS: Final = 210_000

#: Revoked users and tokens that are kept: some 30 MB. Who revokes more is told so, rather than the oldest forgotten.
REVOCATIONS: Final = 100_000

#: Rounds that a kept hash may have: fewer are quick to guess, more would keep a core busy for seconds.
PASSWORD_COSTS: Final = (100_000, 2_000_000)

#: In code points. Eight are what NIST SP 800-63B asks for; beyond the longest no rule is looked at.
PASSWORD_MIN_LENGTH: Final = 8
PASSWORD_MAX_LENGTH: Final = 1024

#: Passwords that are hashed at once, in the whole process: each takes a core, and there is other work.
PASSWORD_HASHES: Final = 2

#: Passwords that are hashed or wait for it, for one server: some 5 s of work for two cores, half a handshake's time.
PASSWORD_QUEUE: Final = 100

#: Right passwords that are remembered, 100 bytes each: more than there are busy rooms.
PASSWORD_MEMORY: Final = 10_000

#: Wrong passwords that an address has free (people behind one address mistype, too), and seconds until one more is.
ATTEMPTS_BURST: Final = 20
ATTEMPTS_INTERVAL: Final = 3.0

#: Addresses whose failures are remembered: some 3 MB.
ATTEMPTS_ADDRESSES: Final = 16_384

# --- logs -----------------------------------------------------------------------------------------

#: Bytes of a value from outside that are shown in a log; the seed's.
LOG_VALUE: Final = 200

#: Characters of a line in a log, less what says whom it is about.
LOG_LINE: Final = 2000

#: Lines in a second, whatever 10,000 bad clients do: what a person can still read, and a disk can hold.
LOG_LINES: Final = 10

#: Lines of which there may have been so many in the last second before one more of a kind that was there is left out.
LOG_REPEATED: Final = 3

#: The same for a line of a new kind, unless it is a warning: those have the rest.
LOG_CALM: Final = 6

#: What was left out is told this often.
LOG_SUMMARY_EVERY: Final = 1.0

#: Kinds of lines that this names, the most frequent first.
LOG_KINDS: Final = 8
