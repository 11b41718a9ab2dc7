"""The command `plumews`: its version, its exit codes, and its log."""

from __future__ import annotations

import re
import signal

import pytest

import plumews
from plumews.cli import main as main_module
from plumews.cli import options as cli_options
from plumews.cli.main import main
from support.command import Command, Serve, failure, on_one_loop, status


def test_version_names_codec_loop_and_python() -> None:
    with Command("--version") as command:
        code, out, err = command.end()
    assert (code, err) == (0, [])
    loop = r"uvloop \d\S+" if cli_options.has_uvloop() else "asyncio, uvloop is not installed"
    version = re.escape(plumews.__version__)
    assert re.fullmatch(rf"plumews {version} \(codec {plumews.BODY}, loop {loop}, \w+ 3\.\S+\)", "\n".join(out)), out


def test_process_ends_with_2_for_a_wrong_command_line() -> None:
    code, line = failure("serve", "--port", "http")
    assert code == 2
    assert line.startswith("plumews serve: argument --port: must be a whole number, from 0 to 65535, not 'http' (")


@on_one_loop
async def test_log_goes_to_stderr_without_passwords(serve: Serve) -> None:
    for options, lines in ((), 0), (("-v",), 1):
        server = serve("--room", "chat=secret-password", *options)
        assert await status(server, "/ws?room=chat&room_password=wrong-password") == 403
        server.stop()
        code, _, err = server.end()
        refusals = [line for line in err if "refused 403" in line]
        assert (code, len(refusals)) == (0, lines), err
        assert "password=" not in "".join(err)
        assert "-password" not in "".join(err)


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ([], "WARNING"),
        (["-v"], "DEBUG"),
        (["--log-level", "debug"], "DEBUG"),
        (["-v", "--log-level", "error"], "ERROR"),
    ],
)
def test_log_level_follows_the_options(monkeypatch: pytest.MonkeyPatch, options: list[str], level: str) -> None:
    told: list[str] = []
    monkeypatch.setattr(main_module.logging, "basicConfig", lambda **options: told.append(options["level"]))
    monkeypatch.setattr(main_module, "run_serve", lambda args: 0)
    assert main(["serve", *options]) == 0
    assert told == [level]


@pytest.mark.parametrize(
    "end", [main_module.Failure("no such machine"), KeyboardInterrupt()], ids=["failure", "Ctrl-C"]
)
def test_failure_or_interrupt_sets_the_exit_code(
    end: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_serve(args: object) -> int:
        raise end

    monkeypatch.setattr(main_module, "run_serve", run_serve)
    code = main(["serve"])
    told = ("", "plumews serve: no such machine\n") if isinstance(end, main_module.Failure) else ("", "")
    assert (code, capsys.readouterr()) == (1 if told[1] else 128 + signal.SIGINT, told)
