"""The forms of a message that many get: as it is, and compressed once for each set of parameters (layer 3; RFC 7692).

Who compresses without takeover can be sent the same bytes as all others with its parameters. A form is made when the
first of them is reached, and kept with the message. Who has a context of its own compresses by itself, behind its
queue. Invariants: a form is made once; what is longer than `limits.COMPRESS_PIECE` is compressed piece by piece by who
can wait between two of them, and leaves as it is where nobody can, unless the application asks for it.
"""

from __future__ import annotations

from .. import limits
from ..protocol.message import EncodedMessage, encode
from .outbound import DeflateParams, shared_compressor
from .streams import EMPTY, ContextCompressor

__all__ = ["EncodingCache", "Making", "form_of", "is_long", "known_form", "make_form", "without_context"]

#: Every flush ends with these bytes, which are not sent (section 7.2.1).
_TAIL = 4


def form_of(message: EncodedMessage, shared: DeflateParams | None, compresses: bool) -> EncodedMessage:
    """Return what to send now for ``message`` to a connection with the parameters ``shared``.

    Without them, and if it ``compresses``, the connection compresses by itself: it gets the message as it is.
    """
    if shared is None:
        return without_context(message) if compresses else message
    form = known_form(message, shared)
    if form is None:
        form = message if is_long(message) else make_form(message, shared)
    return form


def known_form(message: EncodedMessage, shared: DeflateParams) -> EncodedMessage | None:
    """The form that was made for those with the parameters ``shared``; ``None``: none was."""
    forms = message.forms
    if forms is None or shared not in forms:
        return None
    return forms[shared] or message


def is_long(message: EncodedMessage) -> bool:
    """Whether compressing it would hold up others, and nobody has asked for that."""
    return message.compress is None and message.size > limits.COMPRESS_PIECE


def without_context(message: EncodedMessage) -> EncodedMessage:
    """``message`` for those that would compress it one by one: as it is, if that would take long."""
    if not is_long(message):
        return message
    if message.forms is None:
        message.forms = {}
    plain: EncodedMessage | None = message.forms.get(None)
    if plain is None:
        plain = message.forms[None] = EncodedMessage(message.buffers, message.size, False)
    return plain


def make_form(message: EncodedMessage, shared: DeflateParams) -> EncodedMessage:
    """``message`` as those with the parameters ``shared`` get it: itself, if it is not to be or gets no smaller."""
    if not _may_be_wanted(message, shared):
        return _keep(message, shared, message)
    opcode, payload = message.message()
    if not _is_wanted(message, payload, shared):
        return _keep(message, shared, message)
    return _made(message, shared, opcode, payload, shared_compressor(shared.key).compress(payload))


class Making:
    """The same in pieces, each of which takes a millisecond or two."""

    __slots__ = ("_at", "_context", "_made", "_message", "_opcode", "_payload", "shared")

    def __init__(self, message: EncodedMessage, shared: DeflateParams) -> None:
        self.shared = shared
        self._message = message
        self._opcode, self._payload = message.message()
        self._context = ContextCompressor(*shared.key)
        self._made: list[bytes] = []
        self._at = 0

    def more(self) -> EncodedMessage | None:
        """Compress the next piece; the form, if that was the last."""
        message, payload, shared = self._message, self._payload, self.shared
        if not _is_wanted(message, payload, shared):
            return _keep(message, shared, message)
        end = self._at + limits.COMPRESS_PIECE
        self._made.append(self._context.piece(payload[self._at : end]))
        self._at = end
        if end < len(payload):
            return None
        return _made(message, shared, self._opcode, payload, b"".join(self._made)[:-_TAIL] or EMPTY)


class EncodingCache:
    """The forms of messages that are kept to be sent again, up to so many bytes with the messages themselves.

    The forms that were asked for least recently go first.
    """

    def __init__(self, most: int) -> None:
        self.bytes = 0
        self._most = most
        self._held: dict[EncodedMessage, int] = {}

    def __len__(self) -> int:
        """How many messages have forms."""
        return len(self._held)

    def choose(
        self, messages: list[EncodedMessage], shared: DeflateParams | None, compresses: bool
    ) -> list[EncodedMessage]:
        """Return ``messages`` for a connection as in :func:`form_of`.

        One call compresses at most `limits.COMPRESS_PIECE` bytes. Messages beyond that leave as they are.
        """
        if not compresses:
            return messages
        left = limits.COMPRESS_PIECE
        chosen: list[EncodedMessage] = []
        for message in messages:
            size = message.size
            form = None if shared is None else self._known(message, shared)
            if form is None and size > left and message.compress is not False:
                form = EncodedMessage(message.buffers, size, False)
            elif form is None:
                left -= size
                form = message if shared is None else self._make(message, shared)
            chosen.append(form)
        return chosen

    def clear(self) -> None:
        """Forget all."""
        for message in self._held:
            message.forms = None
        self._held.clear()
        self.bytes = 0

    def _known(self, message: EncodedMessage, shared: DeflateParams) -> EncodedMessage | None:
        form = known_form(message, shared)
        if form is not None and message in self._held:
            self._held[message] = self._held.pop(message)
        return form

    def _make(self, message: EncodedMessage, shared: DeflateParams) -> EncodedMessage:
        form = make_form(message, shared)
        before = self._held.pop(message, 0)
        size = before or message.size + limits.HISTORY_OVERHEAD
        size += 0 if form is message else form.size + limits.HISTORY_OVERHEAD
        self._held[message] = size
        self.bytes += size - before
        while self.bytes > self._most and self._held:
            oldest = next(iter(self._held))
            self.bytes -= self._held.pop(oldest)
            oldest.forms = None
        return form


def _may_be_wanted(message: EncodedMessage, shared: DeflateParams) -> bool:
    """Whether it is worth a look: frames are two bytes longer than what they carry, at least."""
    if message.compress is not None:
        return bool(message.compress)
    return message.size >= shared.min_size + 2


def _is_wanted(message: EncodedMessage, payload: bytes, shared: DeflateParams) -> bool:
    return bool(len(payload) >= shared.min_size if message.compress is None else message.compress)


def _made(message: EncodedMessage, shared: DeflateParams, opcode: int, payload: bytes, data: bytes) -> EncodedMessage:
    form = message
    if len(data) < len(payload) or message.compress:
        form = encode(opcode, data, fragment_size=shared.fragment_size, rsv1=True)
    return _keep(message, shared, form)


def _keep(message: EncodedMessage, shared: DeflateParams, form: EncodedMessage) -> EncodedMessage:
    if message.forms is None:
        message.forms = {}
    message.forms[shared] = None if form is message else form  # else it would hold itself
    return form
