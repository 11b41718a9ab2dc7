"""HTTP headers: the mapping, and parsers of header values.

Names compare without case. A name may occur on several lines. Order and spelling are kept (RFC 9110 section 5).

Invariant: every name is a token, and no value contains a control character, so that no header of an application can
add a line. Received values may contain all bytes from 0x80 on, as ISO-8859-1. Those of an application may not contain
0x80 to 0x9f. All functions take linear time and use no regular expressions.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Final, TypeAlias

from ..errors import InvalidHeader

__all__ = [
    "BLANKS",
    "KNOWN_NAMES",
    "Headers",
    "HeadersLike",
    "MultipleValuesError",
    "has_token",
    "is_token",
    "name_of",
    "parse_host",
    "parse_tokens",
    "quoted_string",
    "skip_blanks",
    "token_end",
    "value_of",
]

HeadersLike: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"

#: Blanks of a header value (RFC 9110 section 5.6.3). ``str.strip()`` would remove \x1c and \x85, too.
BLANKS: Final = " \t"

#: Characters that end a token in a list of parameters.
_TOKEN_ENDS: Final = frozenset(' \t,;="')

#: Characters of a token (RFC 9110 section 5.6.2).
_TOKEN: Final = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")

#: Characters of a host name. The underscore is not valid in DNS, but occurs in names of containers.
_HOST_NAME: Final = frozenset(string.ascii_letters + string.digits + "-._~")
_HOST_IPV6: Final = frozenset(string.hexdigits + ":.")

#: Most characters of a host that is cached: longer than any real one.
_HOST_SIZE: Final = 264

#: Names that occur in handshakes, as clients spell them. Each connection shares these strings.
_KNOWN: Final = """
    Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Length Content-Type Cookie Host
    Origin Pragma Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-WebSocket-Accept Sec-WebSocket-Extensions
    Sec-WebSocket-Key Sec-WebSocket-Protocol Sec-WebSocket-Version Upgrade User-Agent
"""
KNOWN_NAMES: Final = tuple(_KNOWN.split())
_LOWER: Final = {name: name.lower() for name in KNOWN_NAMES}
_SPELLED: Final = {name.encode(): name for name in _LOWER}


def name_of(raw: bytes) -> str:
    """Return the received header name ``raw``."""
    return _SPELLED.get(raw) or raw.decode("latin-1")


#: Number and size in bytes of the header values that connections share. A few browsers make most of a crowd, whose
#: headers take half a kilobyte each; the name of a browser has less than 200 bytes.
_SHARED_VALUES: Final = 256
_SHARED_VALUE_SIZE: Final = 256

#: Headers whose values many connections share, and that carry no secret (a subprotocol may carry a token).
_COMMON: Final = frozenset(
    (
        *("Accept-Encoding", "Accept-Language", "Cache-Control", "Connection", "Host", "Origin", "Pragma"),
        *("Sec-WebSocket-Extensions", "Sec-WebSocket-Version", "Upgrade", "User-Agent"),
    )
)


def value_of(name: str, raw: bytes) -> str:
    """Return the received value ``raw`` without surrounding blanks. Connections share the strings of common headers."""
    if name in _COMMON and len(raw) <= _SHARED_VALUE_SIZE:
        return _shared_value(raw)
    return raw.decode("latin-1").strip(BLANKS)


@functools.lru_cache(maxsize=_SHARED_VALUES)
def _shared_value(raw: bytes) -> str:
    return raw.decode("latin-1").strip(BLANKS)


class MultipleValuesError(LookupError):
    """``headers[name]`` is ambiguous: the name occurs on several lines. ``get_all`` returns all values."""


def is_token(text: str) -> bool:
    """Return True if ``text`` is a token (RFC 9110 section 5.6.2), as header names and subprotocols are."""
    return bool(text) and _TOKEN.issuperset(text)


def _is_control(char: str) -> bool:
    # C1 (0x80 to 0x9f), too: some parsers end a line at 0x85.
    return (char < " " and char != "\t") or "\x7f" <= char <= "\x9f"


def _check(name: str, value: str) -> None:
    if name in _LOWER and type(value) is str and value.isascii() and value.isprintable():
        return
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"a header is a pair of str, got {type(name).__name__} and {type(value).__name__}")
    # Fast path: isalnum() is cheaper than a set test of each letter.
    if not (name.isascii() and name.replace("-", "").isalnum()) and not is_token(name):
        raise ValueError(f"invalid header name {name!r}: letters, digits and !#$%&'*+-.^_`|~ are allowed")
    if value.isascii() and value.isprintable():
        return
    for char in value:
        if _is_control(char):
            raise ValueError(f"invalid value of header {name}: it contains the control character {char!r}")
        if char > "\xff":
            raise ValueError(
                f"invalid value of header {name}: {char!r} is outside Latin-1; encode it, for example as %XX"
            )


class Headers(MutableMapping[str, str]):
    """Ordered HTTP headers with case-insensitive lookup.

    As in the ``websockets`` package, ``headers[name] = value`` *adds* a line. ``headers[name]`` raises ``KeyError``
    if there is no such line, and `MultipleValuesError` if there are several. Iteration and ``len`` count each name
    once.

    Args:
        sources: Mappings, lists of pairs, or pairs: ``Headers({"Server": "x"})``,
            ``Headers([("A", "1"), ("A", "2")])`` and ``Headers(("A", "1"), ("A", "2"))``.

    Raises:
        ValueError: A name is no token, or a value contains a control character or one outside Latin-1.
    """

    __slots__ = ("_pairs", "_values")

    def __init__(self, *sources: HeadersLike | tuple[str, str]) -> None:
        self._pairs: list[tuple[str, str]] = []
        # A single value is stored without a list: most names occur once, and a list costs as much as its content.
        self._values: dict[str, str | list[str]] = {}
        for source in sources:
            if isinstance(source, Headers):
                for name, value in source._pairs:  # checked before
                    self._add(name, value)
                continue
            if isinstance(source, Mapping):
                pairs: Iterable[tuple[str, str]] = source.items()
            elif isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str):
                pairs = [source]
            else:
                pairs = source
            for name, value in pairs:
                self.add(name, value)

    @classmethod
    def read(cls, pairs: list[tuple[str, str]]) -> Headers:
        """Return headers of ``pairs``, which a parser has checked. The list is kept, not copied."""
        headers = cls.__new__(cls)
        headers._pairs = pairs
        headers._values = {_LOWER.get(name) or name.lower(): value for name, value in pairs}
        if len(headers._values) != len(pairs):  # a name is repeated
            headers._pairs, headers._values = [], {}
            for name, value in pairs:
                headers._add(name, value)
        return headers

    @classmethod
    def checked(cls, pairs: list[tuple[str, str]]) -> Headers:
        """Return headers of ``pairs`` with valid names, whose values are checked. The list is kept, not copied.

        Raises:
            ValueError: A value contains a control character or one outside Latin-1.
        """
        values = "".join([value for _, value in pairs])
        if not (values.isascii() and values.isprintable()):
            for name, value in pairs:
                _check(name, value)
        return cls.read(pairs)

    def add(self, name: str, value: str) -> None:
        """Add a line behind the others."""
        _check(name, value)
        self._add(name, value)

    def _add(self, name: str, value: str) -> None:
        self._pairs.append((name, value))
        key = _LOWER.get(name) or name.lower()
        values = self._values.get(key)
        if values is None:
            self._values[key] = value
        elif isinstance(values, list):
            values.append(value)
        else:
            self._values[key] = [values, value]

    def get_all(self, name: str) -> list[str]:
        """Return the values of all lines of ``name``, in order."""
        values = self._values.get(_LOWER.get(name) or name.lower())
        if values is None:
            return []
        return values.copy() if isinstance(values, list) else [values]

    def repeated(self, names: Iterable[str]) -> str | None:
        """Return the first of ``names`` that occurs on more than one line, or ``None``."""
        if len(self._values) == len(self._pairs):
            return None
        return next((name for name in names if isinstance(self._values.get(name.lower()), list)), None)

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over all lines as ``(name, value)``, in order and as spelled."""
        return iter(self._pairs)

    def serialize(self) -> bytes:
        """Return the header section of a message, with the empty line at its end.

        Raises:
            ValueError: A received value may not be sent.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in self._pairs])
        if not lines.isascii():
            for name, value in self._pairs:
                _check(name, value)
        return f"{lines}\r\n".encode("latin-1")

    def __getitem__(self, name: str) -> str:
        values = self._values[name.lower()]
        if isinstance(values, list):
            raise MultipleValuesError(f"header {name} stands on {len(values)} lines: use get_all({name!r})")
        return values

    def __setitem__(self, name: str, value: str) -> None:
        self.add(name, value)

    def __delitem__(self, name: str) -> None:
        del self._values[name.lower()]
        self._pairs = [pair for pair in self._pairs if pair[0].lower() != name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        names: dict[str, str] = {}
        for name, _ in self._pairs:
            names.setdefault(name.lower(), name)
        return iter(names.values())

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # Names only: values may be passwords and tokens, and a repr may be logged.
        return f"<Headers {', '.join(name for name, _ in self._pairs)}>"


def skip_blanks(text: str, at: int) -> int:
    """Return the position of the first character from ``at`` on that is no blank."""
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at


def token_end(text: str, at: int) -> int:
    """Return the position behind the token at ``at``. Its characters are not checked."""
    while at < len(text) and text[at] not in _TOKEN_ENDS:
        at += 1
    return at


def quoted_string(text: str, at: int) -> tuple[str, int] | None:
    """Return the content of the quoted string at ``at``, and the position behind it (RFC 9110 section 5.6.4).

    Without a quotation mark at its end, return ``None``.
    """
    characters: list[str] = []
    at += 1
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\"
        characters.append(text[at : at + 1])
        at += 1
    return None if at >= len(text) else ("".join(characters), at + 1)


def _elements(values: Iterable[str]) -> Iterator[str]:
    # Lines of one name form one list. Empty elements are ignored (RFC 9110 section 5.6.1).
    for value in values:
        for element in value.split(","):
            stripped = element.strip(BLANKS)
            if stripped:
                yield stripped


def parse_tokens(values: Sequence[str], name: str = "header") -> list[str]:
    """Return the tokens of a comma-separated list on one or more header lines (RFC 9110 section 5.6.1).

    Raise `InvalidHeader`, whose text contains ``name``, if an element is not a token.
    """
    if not values:
        return []
    tokens = list(_elements(values))
    if not all(map(is_token, tokens)):
        raise InvalidHeader(f"invalid {name}: expected tokens separated by commas")
    return tokens


def has_token(values: Sequence[str], token: str) -> bool:
    """Return True if the list, as in `parse_tokens`, contains ``token``, given in lower case, in any case.

    Malformed elements match nothing: ``Upgrade`` may offer ``h2/2``, which is not a token.
    """
    for value in values:
        if value.lower() == token:
            return True
    return any(element.lower() == token for element in _elements(values))


def parse_host(value: str) -> tuple[str, int | None]:
    """Return host and port of ``host`` or ``host:port``, as in a ``Host`` header or an origin (RFC 9112 section 3.2).

    The host is in lower case, an IPv6 address without its brackets. Raise ``ValueError`` for another form.
    """
    return _known_host(value) if len(value) <= _HOST_SIZE else _parse_host(value)


def _parse_host(value: str) -> tuple[str, int | None]:
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        valid = bool(bracket) and ":" in host and _HOST_IPV6.issuperset(host) and colon in ("", ":")
    else:
        host, colon, port = value.partition(":")
        valid = bool(host) and _HOST_NAME.issuperset(host)
    if not valid:
        raise ValueError(f"invalid host {value!r}: expected a name or an address, and maybe a port")
    if not colon:
        return host.lower(), None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"invalid port in host {value!r}: expected a number up to 65535")
    return host.lower(), int(port)


#: Cached: nearly all clients of a server use the same name for it.
_known_host = functools.lru_cache(maxsize=64)(_parse_host)
