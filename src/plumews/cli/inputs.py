"""What `plumews serve` takes from files and from the command line: rooms, secrets, certificate (layer 6).

Whatever is wrong with them ends in one line that says what would be right, and never what the secret is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import limits
from ..auth.simple import SimpleRoomAuth
from ..constants import ErrorCode
from ..errors import Refused, WeakSecret
from ..hub.rooms import check_room_name, validate_room_name
from ..room_server.admin import check_broadcast_secret
from ..room_server.text_filter import TextPolicy
from ..server.routes import check_route_token

__all__ = [
    "Failure",
    "RoomEntry",
    "ServeAuth",
    "broadcast_secret_of_file",
    "make_auth",
    "reason",
    "room_entry",
    "text_policy",
    "tls_context",
    "token_of_file",
]

#: A room and its password; ``None`` is an open room.
RoomEntry = tuple[str, "str | None"]


class Failure(Exception):
    """Ends the command with exit code 1; the text is the line that is printed."""


class ServeAuth(SimpleRoomAuth):
    """Room passwords and tokens for ``rooms``, and whether there are no others."""

    def __init__(self, secret: bytes | None, rooms: Mapping[str, str | None], *, only_known_rooms: bool) -> None:
        super().__init__(secret)
        self._only_known = only_known_rooms
        self._known = tuple(rooms)
        passwords = {room: password for room, password in rooms.items() if password is not None}
        self._protected = tuple(passwords)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each takes a tenth of a second of one core
            list(pool.map(self.set_room_password, passwords.keys(), passwords.values()))

    def has_room_password(self, room: str) -> bool:
        """Whether ``room`` has a password; a room that must not exist is refused here, for an open one may be known."""
        if self._only_known and room not in self._known:
            raise Refused("forbidden: unknown room", code=ErrorCode.ROOM_FORBIDDEN)
        return super().has_room_password(room)

    def describe(self) -> str:
        """Which rooms are protected, by name."""
        line = f"rooms with a password: {', '.join(self._protected) or 'none'}"
        if not self._only_known:
            return f"{line}; every other room is open"
        opened = [room for room in self._known if room not in self._protected]
        return f"{line}; open rooms: {', '.join(opened) or 'none'}; there are no others"


def make_auth(
    rooms: Sequence[RoomEntry],
    rooms_file: str | None,
    secret_file: str | None,
    *,
    only_known_rooms: bool,
    plain_names: bool = False,
) -> ServeAuth:
    """Who may enter, of the entries on the command line and those in the files."""
    rooms = [*rooms, *(() if rooms_file is None else _rooms_of_file(rooms_file))]
    if only_known_rooms and not rooms:
        raise Failure(
            f"--rooms-file {rooms_file} names no room, so that nobody could enter: --open-rooms opens all others"
        )
    names: set[str] = set()
    for name, _ in rooms:
        if name in names:
            raise Failure(f"room {name} is given twice: give each room once, with one password")
        names.add(name)
        if plain_names:
            _check_plain(name)
    secret = None if secret_file is None else _secret_of_file(secret_file)
    return ServeAuth(secret, dict(rooms), only_known_rooms=only_known_rooms)


def _check_plain(name: str) -> None:
    try:
        validate_room_name(name)
    except ValueError as exc:
        raise Failure(f"room {name} cannot be entered with --plain-room-names: {exc}") from exc


def room_entry(text: str) -> RoomEntry:
    """``NAME=PASSWORD``, or ``NAME`` for an open room; the first ``=`` ends the name.

    Raises ``ValueError`` with what is wrong, but without the password.
    """
    name, equals, password = text.partition("=")
    try:
        check_room_name(name)
    except ValueError as exc:
        raise ValueError(f"{exc}; expected NAME=PASSWORD or NAME") from exc
    if not equals:
        return name, None
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= limits.PASSWORD_SIZE:
        raise ValueError(
            f"the password of room {name} must be text of 1 to {limits.PASSWORD_SIZE} bytes of UTF-8; "
            f"for an open room give {name} alone"
        )
    return name, password


def text_policy(name: str, max_size: int) -> TextPolicy | None:
    """The policy that ``--text`` names; its length is that of all messages."""
    if name == "any":
        return None
    lines = name == "lines"
    return TextPolicy(max_length=max_size, allow_newlines=lines, allow_tabs=lines)


def tls_context(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """The context for a certificate chain and its key, in one file or in two."""
    if cert is None:
        return None
    _read(cert, "--tls-cert")  # the error of load_cert_chain does not name the file
    if key is not None:
        _read(key, "--tls-key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as exc:
        files = f"--tls-cert {cert}" if key is None else f"--tls-cert {cert} and --tls-key {key}"
        detail = (exc.reason or "not PEM").replace("_", " ").lower()
        raise Failure(f"{files} must hold a PEM certificate chain and its private key: {detail}") from exc
    return context


def token_of_file(path: str) -> str:
    """The token in the file of ``--metrics-token-file``; a newline at its end does not count."""
    try:
        return check_route_token(_read(path, "--metrics-token-file").decode("latin-1").rstrip("\r\n"))
    except ValueError as exc:
        raise Failure(f"--metrics-token-file {path}: {exc}") from exc


def broadcast_secret_of_file(path: str, auth: ServeAuth) -> bytes:
    """The secret in the file of ``--broadcast-secret-file``, which must not be that of the tokens."""
    try:
        secret = check_broadcast_secret(_read(path, "--broadcast-secret-file").rstrip(b"\r\n"))
    except ValueError as exc:
        raise Failure(f"--broadcast-secret-file {path}: {exc}") from exc
    if auth.signs_with(secret):
        raise Failure(f"--broadcast-secret-file {path}: it must not hold the secret of --secret-file")
    return secret


def reason(exc: Exception) -> str:
    """What the system says, without the words that the event loop puts around it."""
    if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror) and exc.errno:
        return os.strerror(exc.errno).lower()
    return str(getattr(exc, "strerror", None) or exc).lower()


def _rooms_of_file(path: str) -> Iterator[RoomEntry]:
    lines = None
    with contextlib.suppress(UnicodeDecodeError):  # which holds the passwords: it is no cause of another one
        lines = _read(path, "--rooms-file").decode("utf-8-sig").split("\n")
    if lines is None:
        raise Failure(f"--rooms-file {path} must be UTF-8 text, with NAME=PASSWORD on each line")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield room_entry(line.removesuffix("\r"))
            except ValueError as exc:
                raise Failure(f"--rooms-file {path}, line {number}: {exc}") from exc


def _secret_of_file(path: str) -> bytes:
    secret = _read(path, "--secret-file").removesuffix(b"\n").removesuffix(b"\r")
    try:
        SimpleRoomAuth(secret)
    except WeakSecret as exc:
        raise Failure(f"--secret-file {path}: {exc}") from exc
    return secret


def _read(path: str, option: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise Failure(f"{option} {path} cannot be read: {reason(exc)}") from exc
