"""`plumews connect` as a process of its own: in pipes, on a terminal, its exit codes, and its options.

The loop of the server does not matter here, so one is enough. The command runs on asyncio's.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews.cli import connect
from plumews.cli.main import main
from support.command import certificate, kill, on_one_loop

#: Seconds for anything that a process does.
PATIENCE = 20.0

#: The command where prompt_toolkit is not installed.
PLAIN = (
    "import sys; sys.modules['prompt_toolkit'] = None; from plumews.cli.main import main; sys.exit(main(sys.argv[1:]))"
)

CLOSED_OK = "connection closed: received 1000 (normal closure); sent 1000 (normal closure)"

Start = Callable[[Any], Any]

needs_terminals = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
each_console = pytest.mark.parametrize(
    "editor",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                importlib.util.find_spec("prompt_toolkit") is None, reason="prompt_toolkit is not installed"
            ),
        ),
    ],
    ids=["plain", "editor"],
)


def command(*args: str, editor: bool = True) -> list[str]:
    way = ["-m", "plumews"] if editor else ["-c", PLAIN]
    return [sys.executable, "-W", "error", *way, "connect", *args]


def environment(**variables: str) -> dict[str, str]:
    path = str(Path(plumews.__file__).parent.parent)
    kept = {name: value for name, value in os.environ.items() if name != "PLUMEWS_TOKEN"}
    return {**kept, "PYTHONPATH": path, "TERM": "xterm", **variables}


async def run(*args: str, data: bytes = b"", **variables: str) -> tuple[int | None, bytes, list[str]]:
    """Run the command with ``data`` in its input: exit code, stdout and lines of stderr."""
    process = await asyncio.create_subprocess_exec(
        *command(*args),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(data), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, out, err.decode().splitlines()


async def answer(conn: plumews.Conn) -> None:
    """Echo, except words that ask for something else."""
    async for message in conn:
        if message == "close":
            await conn.close(4001, "so\x1blong")
        elif message == "abort":
            conn.abort()
        elif message == "control":
            await conn.send("\x1b[2J\x9b\u202e")
        else:
            await conn.send(message)


@pytest.fixture
async def uri(start: Start) -> str:
    server = await start(plumews.serve(answer, "127.0.0.1", 0))
    return f"ws://127.0.0.1:{server.port}/"


# --- in pipes -------------------------------------------------------------------------------------


@on_one_loop
async def test_each_line_is_sent_and_answers_are_untouched(uri: str) -> None:
    code, out, err = await run(uri, "--wait", "0.3", data="hi\n\ncontrol\nl\u00e4st".encode())
    assert (code, err) == (0, [CLOSED_OK])
    assert out == "hi\n\n\x1b[2J\x9b\u202e\nl\u00e4st\n".encode()


@on_one_loop
async def test_every_answer_is_written_before_the_end(uri: str) -> None:
    data = b"".join(b"%d\n" % number for number in range(100_000))
    code, out, err = await run(uri, "--wait", "0.5", data=data)
    assert (code, err) == (0, [CLOSED_OK])
    assert out == data


@on_one_loop
async def test_too_large_message_ends_with_a_code_of_its_own(uri: str) -> None:
    code, out, err = await run(uri, "--max-size", "2", "--wait", str(PATIENCE), data=b"hello\n")
    assert (code, out, len(err)) == (4, b"", 1)
    assert err[0].startswith("connection closed: sent 1009 (message too big)")


@on_one_loop
async def test_binary_sends_all_of_a_pipe_as_one_message(uri: str) -> None:
    data = bytes(range(256)) * 1000
    code, out, err = await run(uri, "--binary", "--wait", "0.3", data=data)
    assert (code, out, err) == (0, data, [CLOSED_OK])


@pytest.mark.parametrize(
    ("word", "expected", "line"),
    [
        ("close", 4, "connection closed: received 4001 (private use) so\\x1blong; sent 4001 (private use)"),
        ("abort", 5, "connection closed: no close frame received or sent"),
        ("\udcff", 1, "plumews connect: standard input is not UTF-8: --binary sends it all the same"),
    ],
    ids=["code", "lost", "input"],
)
@on_one_loop
async def test_exit_code_tells_how_the_connection_ended(uri: str, word: str, expected: int, line: str) -> None:
    code, out, err = await run(uri, "--wait", str(PATIENCE), data=word.encode(errors="surrogateescape"))
    assert (code, out, err[-1]) == (expected, b"", line)


@on_one_loop
async def test_request_has_headers_subprotocol_and_token(start: Start) -> None:
    async def tell(conn: plumews.Conn) -> None:
        names = ("X-One", "X-Two", "Origin", "Authorization")
        await conn.send(json.dumps([conn.subprotocol, *(conn.request.headers.get(name) for name in names)]))
        await conn.wait_closed()

    server = await start(plumews.serve(tell, "127.0.0.1", 0, subprotocols=["b"], origins=["*"]))
    options = ["--header", "X-One: 1", "--header", "X-Two:a:b", "--subprotocol", "a", "--subprotocol", "b"]
    code, out, err = await run(
        f"ws://127.0.0.1:{server.port}/",
        *(*options, "--origin", "https://example.com", "--json", "--ping", "60", "--wait", "0.3"),
        PLUMEWS_TOKEN="s3cret",
    )
    assert (code, err[-1]) == (0, CLOSED_OK)
    assert json.loads(out) == ["b", "1", "a:b", "https://example.com", "Bearer s3cret"]
    assert out.startswith(b'[\n  "b",\n')
    assert err[0].startswith("pong after ")


@on_one_loop
async def test_refusal_is_shown_with_its_body(start: Start) -> None:
    def refuse(conn: plumews.Conn, request: Any) -> Any:
        return conn.respond(403, "not\x1byou")

    server = await start(plumews.serve(answer, "127.0.0.1", 0, process_request=refuse))
    code, out, err = await run(f"ws://127.0.0.1:{server.port}/", data=b"hi\n")
    assert (code, out) == (3, b"")
    assert len(err) == 1
    assert err[0].endswith("): the server refused the WebSocket: HTTP 403 Forbidden: not\\x1byou")


@on_one_loop
async def test_certificate_is_checked_unless_insecure(start: Start, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate(tmp_path))
    server = await start(plumews.serve(answer, "127.0.0.1", 0, ssl=context))
    address = f"wss://127.0.0.1:{server.port}/"
    code, _, err = await run(address, data=b"hi\n")
    assert code == 1
    assert err[0].startswith("plumews connect: cannot connect: tls (")
    code, out, err = await run(address, "--insecure", "--wait", "0.3", data=b"hi\n")
    assert (code, out) == (0, b"hi\n")
    assert err[0].startswith("--insecure: the certificate is not checked. Anybody on the way can ")


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
@on_one_loop
async def test_sigint_closes_a_unix_connection_with_1000(start: Start, tmp_path: Path) -> None:
    ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def tell(conn: plumews.Conn) -> None:
        await conn.send("ready")
        await conn.wait_closed()
        ended.set_result(conn.close_code)

    await start(plumews.unix_serve(tell, str(tmp_path / "ws")))
    process = await asyncio.create_subprocess_exec(
        *command("ws://localhost/", "--unix", str(tmp_path / "ws")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(ended, PATIENCE) == 1000
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    process._transport.close()  # type: ignore[attr-defined]


# --- on a terminal --------------------------------------------------------------------------------


class Terminal:
    """The command on a pseudo-terminal of its own."""

    def __init__(self, *args: str, editor: bool) -> None:
        import fcntl
        import pty
        import termios

        self._master, slave = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(
            command(*args, editor=editor),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    async def until(self, text: str) -> None:
        """Read until the terminal has shown ``text`` since the last call."""
        await asyncio.to_thread(self._until, text.encode())

    def _until(self, text: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.shown
            chunk = os.read(self._master, 65536)
            if b"\x1b[6n" in chunk:
                self.type("\x1b[1;1R")  # the position of the cursor, which an editor asks for
            self.shown += chunk
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def end(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        kill(self.process)
        os.close(self._master)


@needs_terminals
@each_console
@on_one_loop
async def test_terminal_shows_messages_escaped_until_ctrl_d(uri: str, editor: bool) -> None:
    with Terminal(uri, editor=editor) as terminal:
        await terminal.until(f"connected to {uri}; Ctrl-D closes")
        prompt = ">" if editor else "\n"
        # An editor reads keys only while its prompt is there.
        for keys, shown in [
            ("hello\r", "< hello"),
            ("control\r", "< \\x1b[2J\\x9b\\u202e"),
            *([("\x1b[A\x1b[A\r", "< hello")] if editor else []),  # the line before the last one, of the history
        ]:
            await terminal.until(prompt)
            terminal.type(keys)
            await terminal.until(shown)
        await terminal.until(prompt)
        terminal.type("\x04")
        await terminal.until(CLOSED_OK)
        assert await terminal.end() == 0


@needs_terminals
@each_console
@on_one_loop
async def test_close_of_the_peer_ends_an_open_prompt(start: Start, editor: bool) -> None:
    leave = asyncio.Event()

    async def goodbye(conn: plumews.Conn) -> None:
        await leave.wait()
        await conn.close(1008, "no\nmore")

    server = await start(plumews.serve(goodbye, "127.0.0.1", 0))
    with Terminal(f"ws://127.0.0.1:{server.port}/", editor=editor) as terminal:
        await terminal.until("Ctrl-D closes")
        if editor:
            await terminal.until(">")
        leave.set()
        await terminal.until("connection closed: received 1008 (policy violation) no\\nmore")
        assert await terminal.end() == 4


@needs_terminals
@each_console
@on_one_loop
async def test_ctrl_c_on_a_terminal_closes_with_1000(uri: str, editor: bool) -> None:
    with Terminal(uri, editor=editor) as terminal:
        await terminal.until("Ctrl-D closes")
        terminal.type("hello\r")
        await terminal.until("< hello")
        terminal.type("\x03")
        await terminal.until(CLOSED_OK)
        assert await terminal.end() == 0


# --- command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "the following arguments are required: URI"),
        (["http://user:pass-word@localhost/"], "argument URI: "),
        (["ws://localhost/", "--header", "pass-word"], "argument --header: must be NAME:VALUE"),
        (["ws://localhost/", "--header", "X Y: pass-word"], "argument --header: "),
        (["ws://localhost/", "--token", "pass-word\x01"], "argument --token: invalid token: expected visible ASCII"),
        (["ws://localhost/", "--token", "a", "--token-file", "b"], "give either --token or --token-file"),
        (["ws://localhost/", "--insecure"], "--insecure needs a URI that begins with wss://"),
        (["ws://localhost/", "--subprotocol", "a b"], "argument --subprotocol: invalid subprotocol 'a b'"),
        (["ws://localhost/", "--subprotocol", "a", "--subprotocol", "a"], "a subprotocol is offered twice"),
        (["ws://localhost/", "--unix", ""], "argument --unix: the path of a Unix socket must not be empty"),
        (["ws://localhost/", "--ping", "soon"], "argument --ping: must be a number of seconds, 0 or more, not 'soon'"),
    ],
)
def test_wrong_command_line_ends_with_2_and_one_line(
    options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["connect", *options])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert err.startswith(f"plumews connect: {error}")
    assert err.count("\n") == 1
    assert "pass-word" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
def test_failure_to_connect_ends_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    assert main(["connect", "ws://localhost/", "--unix", path]) == 1
    assert capsys.readouterr().err.startswith(f"plumews connect: cannot connect: connect ({path}): ")


def test_malformed_proxy_of_the_environment_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "ftp://user:pass-word@h")
    assert main(["connect", "ws://example.com/"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("plumews connect: invalid proxy URL: ")
    assert "http_proxy" in err
    assert "pass-word" not in err


def test_token_comes_from_file_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("of-file\n")
    monkeypatch.setenv("PLUMEWS_TOKEN", "of-environment")

    def token(*options: str, uri: str = "ws://localhost/") -> str | None:
        parser = argparse.ArgumentParser()
        connect.add_connect_options(parser)
        return connect._token(parser.parse_args([uri, *options]))

    assert token() == "of-environment"
    assert token("--token", "given") == "given"
    assert token("--token-file", str(path)) == "of-file"
    assert token("--header", "authorization: Basic YQ==") is None
    assert token(uri="ws://user:word@localhost/") is None
    path.write_text("two words")
    with pytest.raises(connect.Failure, match="invalid token"):
        token("--token-file", str(path))
    monkeypatch.setenv("PLUMEWS_TOKEN", "\t")
    with pytest.raises(connect.Failure, match="PLUMEWS_TOKEN: invalid token"):
        token()


@pytest.mark.parametrize(
    ("text", "pretty"),
    [
        ('{"b":[1,2.50],"a":"\u00e4"}', '{\n  "b": [\n    1,\n    2.5\n  ],\n  "a": "\u00e4"\n}'),
        ("no JSON", None),
        ('{"a":1,"a":2}', None),
        ("1.00000000000000000001", None),
        ("[1e999]", None),
        ("[NaN]", None),
        ("[" * 100_000, None),
        ("9" * 5000, None),
    ],
    ids=["object", "text", "keys", "digits", "infinite", "nan", "deep", "long"],
)
def test_json_is_indented_only_if_nothing_is_lost(text: str, pretty: str | None) -> None:
    assert connect._pretty(text) == pretty


def test_indented_json_cannot_control_a_terminal() -> None:
    pretty = connect._pretty('["\x9b2J\u2028\\ud800"]')
    assert connect._shown("", pretty) == '< [\n  "\\x9b2J\\u2028\\ud800"\n]'
    assert connect._shown(b"\x1b\n", None) == "< b'\\x1b\\n'"
