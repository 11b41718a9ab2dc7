"""Drives a fuzz target with atheris: ``fuzz_codec.py reading|tools [libFuzzer's options] [corpus directories]``.

Coverage-guided in both bodies: in the plain one by atheris, in the compiled one if clang built it with
``PLUMEWS_SANITIZE=fuzzer-no-link,address``. ``scripts/fuzz`` does all of that. To replay an input give it as a
file; without atheris: ``python -m fuzz.shrink reading FILE`` in tests/.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import plumews  # with the compiled body, and nothing else of it is to be instrumented

with atheris.instrument_imports(include=["plumews"]):
    import plumews.protocol.pure.parser  # noqa: F401 - the targets find it instrumented

from fuzz import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
