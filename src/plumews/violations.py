"""Error texts of the codec: protocol violations and wrong arguments.

There is one text for each rule of RFC 6455 section 5 that a peer can break, and for each wrong argument. Both bodies
of the codec use these texts, so that they cannot differ. Programs may match their phrases, such as "unmasked client
frame" and "fragmented control frame".
"""

from __future__ import annotations

from typing import Final

# --- first byte of a frame ------------------------------------------------------------------------

RESERVED_BITS: Final = "reserved bits are set, and no extension defines them (RFC 6455 section 5.2)"
RSV1_MISPLACED: Final = "RSV1 is set on a frame that does not begin a message (RFC 7692 section 6.1)"
RESERVED_OPCODE: Final = "reserved opcode {opcode} (RFC 6455 section 5.2)"
FRAGMENTED_CONTROL: Final = "fragmented control frame (RFC 6455 section 5.5)"
STRAY_CONTINUATION: Final = "continuation frame without a message to continue (RFC 6455 section 5.4)"
INTERLEAVED_MESSAGE: Final = "new data opcode while assembling a fragmented message (RFC 6455 section 5.4)"
TOO_MANY_FRAMES: Final = "a message of more than {limit} frames"

# --- second byte and length -----------------------------------------------------------------------

UNMASKED: Final = "unmasked client frame (RFC 6455 section 5.1)"
MASKED: Final = "masked server frame (RFC 6455 section 5.1)"
CONTROL_TOO_LARGE: Final = "control frame too large: at most 125 bytes of payload (RFC 6455 section 5.5)"
LENGTH_NOT_MINIMAL: Final = "payload length not in its shortest form (RFC 6455 section 5.2)"
LENGTH_TOP_BIT: Final = "payload length with its top bit set (RFC 6455 section 5.2)"
TOO_BIG: Final = "a frame of {length} bytes, after {have} of the same message, is beyond the limit of {limit}"

# --- payload --------------------------------------------------------------------------------------

TEXT_NOT_UTF8: Final = "a text message has a byte that cannot stand there (RFC 6455 section 8.1)"
TEXT_CUT: Final = "a text message ends inside a character (RFC 6455 section 8.1)"
CLOSE_ONE_BYTE: Final = "close frame with a payload of one byte: a code has two (RFC 6455 section 5.5.1)"
CLOSE_CODE: Final = "close code {code} may not be sent (RFC 6455 section 7.4)"
CLOSE_REASON_NOT_UTF8: Final = "the reason of a close frame (RFC 6455 section 5.5.1)"

# --- compressed message ---------------------------------------------------------------------------

NOT_DEFLATE: Final = "a compressed message that cannot be inflated (RFC 7692 section 7.2.2)"
AFTER_THE_LAST_BLOCK: Final = "a compressed message that goes on behind its final block (RFC 7692 section 7.2.3.4)"
KEPT_CONTEXT: Final = (
    "it refers to an earlier message: context takeover, against client_no_context_takeover (RFC 7692 section 7.1.1.2)"
)
INFLATED_TOO_BIG: Final = "a compressed message that inflates beyond the limit of {limit}"
INFLATED_TOO_MUCH: Final = "a compressed message that inflates to more than {ratio} times its {size} bytes"

# --- arguments ------------------------------------------------------------------------------------

NOT_A_BUFFER: Final = "a bytes-like object is required, not {type!r}"
NOT_CONTIGUOUS: Final = "the buffer is not contiguous: pass a copy, bytes(...)"
READ_ONLY: Final = "the buffer is read-only: mask_inplace() needs a writable one, mask() returns a copy"
KEY_TYPE: Final = "the mask key must be bytes, not {type!r}"
KEY_LENGTH: Final = "the mask key must be exactly 4 bytes, not {length}"
OPCODE: Final = "an opcode is 0 to 15, not {opcode}"
DATA_OPCODE: Final = "a message is text (1) or binary (2), not {opcode}"
PAIR: Final = "a message of a batch is a pair (opcode, payload), not {type!r}"
LENGTH: Final = "a payload length is 0 to 2**63 - 1, not {length}"
SIZE: Final = "a fragment has at least 1 byte, not {size}"
BOUND: Final = "{name} must be None or {least} to 2**63 - 1, not {value}"
BOUND_TYPE: Final = "{name} must be None or an int, not {type!r}"
NOT_FRAMES: Final = "only whole unmasked frames can be masked"
STREAMING_ALREADY: Final = "streaming was started already: read that message to its end first"
NOTHING_LENT: Final = "there is no buffer to be updated: call receive_buffer() first, and again after feed()"
NBYTES: Final = "the buffer has room for 0 to {size} bytes, not {nbytes}"
