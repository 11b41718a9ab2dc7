"""Options of `plumews serve`: defaults in the help, and one line for a wrong command line."""

from __future__ import annotations

import os
import re
import sys

import pytest

from plumews.cli import main as main_module
from plumews.cli.main import main


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "a command is missing: plumews serve or plumews connect"),
        (["sing"], "'sing'"),
        (["serve", "--sing"], "plumews serve: unrecognized arguments: --sing (plumews serve --help tells more)"),
        (["connect", "ws://a", "--sing"], "unrecognized arguments: --sing (plumews connect --help tells more)"),
        (["serve", "--verb"], "unrecognized arguments: --verb"),
        (["serve", "--port", "http"], "argument --port: must be a whole number, from 0 to 65535, not 'http'"),
        (["serve", "--port", "65536"], "from 0 to 65535, not '65536'"),
        (["serve", "--port", "80", "--unix", "s"], "--unix takes the place of --host and --port"),
        (["serve", "--unix", "s", "--host", "127.0.0.1"], "--unix takes the place of --host and --port"),
        (["serve", "--fd", "3", "--port", "80"], "--fd takes the place of --host and --port"),
        (["serve", "--fd", "3", "--unix", "s"], "--unix takes the place of --fd"),
        (["serve", "--fd", "-1"], "argument --fd: must be a whole number, at least 0"),
        (["serve", "--unix-mode", "660"], "--unix-mode needs --unix with a path"),
        (["serve", "--unix", "@name", "--unix-mode", "660"], "--unix-mode needs --unix with a path"),
        (["serve", "--unix", ""], "argument --unix: the path of a Unix socket must not be empty"),
        (["serve", "--room", "=hunter2"], "argument --room: invalid room name: it must be 1 to 128 bytes"),
        (["serve", "--room", "chat="], "for an open room give chat alone"),
        (["serve", "--room", "chat=" + "x" * 4097], "text of 1 to 4096 bytes of UTF-8"),
        (["serve", "--room", "chat=\udcff"], "text of 1 to 4096 bytes of UTF-8"),
        (["serve", "--require-token"], "--require-token needs --secret-file"),
        (["serve", "--only-known-rooms"], "--only-known-rooms needs --room or --rooms-file"),
        (["serve", "--room", "a", "--only-known-rooms", "--open-rooms"], "contradict each other"),
        (["serve", "--history", "-1"], "argument --history: must be a whole number"),
        (["serve", "--tls-key", "k"], "--tls-key needs --tls-cert"),
        (["serve", "--max-size", "0"], "argument --max-size: must be a whole number, at least 1, not '0'"),
        (["serve", "--max-head", "64"], "argument --max-head: must be a whole number, from 1024 to 1048576, not '64'"),
        (["serve", "--max-connections", "-1"], "must be a whole number, at least 0, not '-1'"),
        (["serve", "--sending-threads", "2"], "unrecognized arguments: --sending-threads 2"),
        (["serve", "--queue-size", "many"], "argument --queue-size: must be a whole number, at least 1, not 'many'"),
        (["serve", "--unsent-bytes", "-1"], "argument --unsent-bytes: must be a whole number, at least 0, not '-1'"),
        (
            ["serve", "--unanswered-bytes", "9", "--ping-interval", "0"],
            "--unanswered-bytes needs --ping-interval and --ping-timeout",
        ),
        (["serve", "--send-timeout", "nan"], "argument --send-timeout: must be a number of seconds, 0 or more"),
        (["serve", "--ping-interval", "inf"], "must be a number of seconds, 0 or more, not 'inf'"),
        (["serve", "--shutdown-timeout", "-1"], "must be a number of seconds, 0 or more, not '-1'"),
        (["serve", "--shutdown-spread", "11"], "--shutdown-spread must not be more than --shutdown-timeout"),
        (["serve", "--reconnect-in", "3601"], "--reconnect-in must be at most 3600"),
        (["serve", "--send-behavior", "explode"], "choose from"),
        (["serve", "--trusted-proxy", "proxy.example"], "invalid trusted proxy 'proxy.example': expected an address"),
        (["serve", "--origin", "example.com"], "expected http:// or https://, a host and maybe a port"),
        (["serve", "--allowed-host", "example.com:80"], "expected a name or an address, without a port"),
        (["serve", "--loop", "trio"], "choose from"),
        (["serve", "--rooms-table", "friends"], "choose from"),
        (["serve", "--metrics-token-file", "f"], "--metrics-token-file needs --metrics"),
        (["serve", "--log-level", "loud"], "choose from"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_command_line_ends_with_2_and_one_line(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_module, "run_serve", lambda args: 0)
    with pytest.raises(SystemExit) as end:
        main(args)
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.endswith(" --help tells more)\n")
    assert err.count("\n") == 1
    assert said in err
    assert "hunter2" not in err


@pytest.mark.parametrize("way", ["--port 80", "--host ::1", "--unix s", "--fd 5"])
def test_inherited_sockets_exclude_another_address(
    way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(SystemExit) as end:
        main(["serve", *way.split()])
    assert end.value.code == 2
    assert "sockets were handed over (LISTEN_FDS): they take the place of --" in capsys.readouterr().err


def test_wrong_listen_fds_ends_with_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "two")
    assert main(["serve"]) == 1
    said = "plumews serve: LISTEN_FDS must be the number of sockets that are handed over, not 'two'\n"
    assert capsys.readouterr().err == said


def test_loop_uvloop_that_is_not_installed_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(SystemExit) as end:
        main(["serve", "--loop", "uvloop"])
    assert end.value.code == 2
    assert "--loop uvloop: it is not installed here; pip install 'plumews[uvloop]'" in capsys.readouterr().err


def test_metrics_without_prometheus_client_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SystemExit) as end:
        main(["serve", "--metrics"])
    assert end.value.code == 2
    said = "--metrics: prometheus_client is not installed here; pip install 'plumews[prometheus]'"
    assert said in capsys.readouterr().err


OPTIONS = re.findall(
    r"\S+",
    "--host --port --unix --unix-mode --fd --tls-cert --tls-key --room --rooms-file --open-rooms "
    "--only-known-rooms --secret-file "
    "--require-token "
    "--no-query-secrets --origin --allowed-host --trusted-proxy --broadcast-secret-file --max-connections "
    "--max-room-connections --max-connections-per-address --accept-rate --accept-rate-per-address --max-size "
    "--max-head "
    "--compression --queue-size --text --plain-room-names "
    "--send-behavior --send-timeout --unsent-bytes --unanswered-bytes --ping-interval --ping-timeout "
    "--no-page --rooms-table --metrics "
    "--metrics-token-file --history --no-echo "
    "--loop --shutdown-timeout --shutdown-spread --reconnect-in "
    "--log-level --verbose",
)


def test_help_explains_every_option_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        main(["serve", "--help"])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    explained = " ".join(out.partition("listening:")[2].split())
    for option in OPTIONS:
        assert re.search(rf"{option}\b[^(]*\(default", explained), option
    assert explained.count("(default") == len(OPTIONS)
