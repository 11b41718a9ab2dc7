"""What stands behind an option of the command, read: bounds, kinds, and words that say what would be right."""

from __future__ import annotations

import argparse
import re

import pytest

from plumews.cli.cli_values import allowed, permissions, rate, room, seconds, trusted_proxy, unix_path, whole


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (whole(1), "1", 1),
        (whole(0, 65535), "65535", 65535),
        (seconds, "0", 0.0),
        (seconds, "1e3", 1000.0),
        (rate, "0", 0.0),
        (rate, "0.5", 0.5),
        (room, "lobby", ("lobby", None)),
        (room, "vault=a=b", ("vault", "a=b")),
        (allowed("origins"), "https://example.com", "https://example.com"),
        (allowed("hosts"), "*.example.com", "*.example.com"),
        (trusted_proxy, "10.0.0.0/8", "10.0.0.0/8"),
        (trusted_proxy, "unix", "unix"),
        (unix_path, "/run/app.sock", "/run/app.sock"),
        (unix_path, "./@file", "./@file"),
        (permissions, "0660", 0o660),
        (permissions, "0o600", 0o600),
    ],
)
def test_what_is_right_is_taken(read, text, value):
    assert read(text) == value
    assert type(read(text)) is type(value)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (whole(1), "0", "must be a whole number, at least 1, not '0'"),
        (whole(0, 65535), "65536", "must be a whole number, from 0 to 65535, not '65536'"),
        (whole(0), "1.5", "must be a whole number"),
        (seconds, "-1", "must be a number of seconds, 0 or more, not '-1'"),
        (seconds, "nan", "must be a number of seconds"),
        (seconds, "inf", "must be a number of seconds"),
        (rate, "1e12", "must be 0, or "),
        (rate, "-0.5", "must be 0, or "),
        (allowed("origins"), "example.com", "expected http:// or https://"),
        (allowed("hosts"), "example.com:80", "without a port"),
        (trusted_proxy, "10.0.0.1/8", "10.0.0.1/8"),
        (unix_path, "", "must not be empty"),
        (permissions, "1777", "must be permissions in octal, such as 660, not '1777'"),
        (permissions, "rw", "must be permissions in octal"),
        (permissions, "-1", "must be permissions in octal"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(read, text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(said)):
        read(text)


def test_a_password_that_is_wrong_is_in_no_message():
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        room("vault=" + "hunter2" * 1000)
    assert "hunter2" not in str(caught.value)
