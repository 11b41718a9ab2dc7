"""plumews._codec: the tiers of instructions, and what a second interpreter of the process gets."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from support.codec_bodies import PURE_ONLY

pytestmark = pytest.mark.skipif(PURE_ONLY, reason="the compiled body is not wanted")


@pytest.fixture
def compiled() -> Any:
    return importlib.import_module("plumews._codec")


def test_best_tier_is_used_first_and_others_by_name(compiled: Any) -> None:
    script = "from plumews import _codec; print(_codec._tier() == _codec._tiers()[-1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "True\n"
    before = compiled._tier()
    try:
        for tier in compiled._tiers():
            compiled._set_tier(tier)
            assert compiled._tier() == tier
    finally:
        compiled._set_tier(before)


def test_every_cpu_has_the_tiers_of_its_baseline(compiled: Any) -> None:
    machine = platform.machine().lower()
    expected = ["portable"]
    expected += ["sse2"] if machine in ("x86_64", "amd64") else ["neon"] if machine in ("aarch64", "arm64") else []
    assert compiled._tiers()[: len(expected)] == expected


def test_a_tier_that_this_cpu_has_not_is_a_value_error(compiled: Any) -> None:
    with pytest.raises(ValueError, match=r"^this CPU has the tiers portable, .*, not 'mmx'$"):
        compiled._set_tier("mmx")


#: What the package needs besides may refuse a second interpreter as well: only the codec is imported there.
SECOND_INTERPRETER = """
import os, sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import plumews._codec
inside = '''
import os, sys, types
sys.path[:0] = {path!r}
package = types.ModuleType("plumews")
package.__path__ = [{package!r}]
sys.modules["plumews"] = package
try:
    import plumews._codec
except ImportError as exc:
    os.write(1, b"refused: " + str(exc).encode() + b"\\\\n")
from plumews import _compiled
body = _compiled.select_body()
from plumews.protocol import codec
told = codec.Parser(client=True, max_size=None).feed(b"\\\\x81\\\\x01a")
os.write(1, (body + " " + str(told) + "\\\\n").encode())
'''.format(path=sys.path, package=os.path.dirname(plumews._codec.__file__))
second = interpreters.create()
failure = interpreters.run_string(second, inside)
assert failure is None, failure
interpreters.destroy(second)
print(plumews._codec.Parser(client=True, max_size=None).feed(b"\\x81\\x01b"))
"""


def test_second_interpreter_uses_the_pure_body() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PLUMEWS_PURE", None)
    run = subprocess.run([sys.executable, "-c", SECOND_INTERPRETER], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    refusal, inside, outside = run.stdout.splitlines()
    assert "interpreter" in refusal
    assert refusal.startswith("refused: ")
    assert inside == "pure [(1, 'a')]"
    assert outside == "[(1, 'b')]"
