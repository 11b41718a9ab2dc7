"""Results of a type checker for programs that use plumews."""

from __future__ import annotations

from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api", reason="mypy is of the extra `lint`")

PROGRAM = Path(__file__).parent / "typed_program.py"

#: Lines that are wrong, and a part of what is said about each.
WRONG = {
    "conn.path": '"Conn" has no attribute "path"',
    "conn.anything = 5": '"Conn" has no attribute "anything"',
    "conn.remote_address[0]": "is not indexable",
    "conn.send(5)": 'Argument 1 to "send"',
    "plumews.serve(print, 'a', 1, max_sise=5)": 'Unexpected keyword argument "max_sise"',
    "plumews.serve(print, 'a', 1, origins=[b'a'])": "has incompatible type",
    "plumews.serve(print, 'a', 1, routes=['/'])": "has incompatible type",
    "hub.broadcast_room('chat', {'a': 1})": 'Argument 2 to "broadcast_room"',
    "hub.broadcast_room('chat', 'x', keep='no')": 'Argument "keep"',
}


def checked(path: Path, cache: Path) -> list[str]:
    """The lines of ``mypy --strict``."""
    out, err, _ = api.run(["--strict", "--config-file=", f"--cache-dir={cache}", "--no-error-summary", str(path)])
    assert err == ""
    return list(out.splitlines())


def test_program_of_a_user_passes_strict_and_slips_do_not(tmp_path: Path):
    assert checked(PROGRAM, tmp_path / "cache") == []
    program = tmp_path / "slips.py"
    head = "import plumews\n\n\nasync def f(conn: plumews.Conn, hub: plumews.Hub) -> None:\n"
    program.write_text(head + "".join(f"    {line}\n" for line in WRONG), encoding="utf-8")
    told = checked(program, tmp_path / "cache")
    for number, words in enumerate(WRONG.values(), 5):
        assert any(f"slips.py:{number}: error: " in line and words in line for line in told), (words, told)
