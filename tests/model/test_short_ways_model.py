"""Short ways of a connection beside the general way alone: the same plays have the same outcome.

Each play is a random sequence of reads, with handlers that answer, broadcast, join, close and raise, and with sockets
that take nothing for a while. A second process without short ways does the same plays. Every peer gets the same
messages in the same order, the same pongs and the same close frame, and all counts agree. A failure names its seed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import loops
from plumews import _compiled
from support.short_ways_play import outcome

PLAYS = 150


@pytest.mark.skipif(
    _compiled.BODY == "compiled" and _compiled.short_ways("conn._core") is None, reason="nothing to compare with"
)
@pytest.mark.parametrize("loop_name", loops())
def test_both_ways_have_the_same_outcome(loop_name: str, tmp_path: Path) -> None:
    env = {**os.environ, "PLUMEWS_SHORT_WAYS": "0", "PLUMEWS_PURE": "0"}
    told = tmp_path / "outcomes"
    command = [sys.executable, "-m", "support.short_ways_play", "0", str(PLAYS), loop_name, str(told)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], env=env, stderr=subprocess.DEVNULL) as general:
        ours = [outcome(seed, loop_name) for seed in range(PLAYS)]
    assert general.returncode == 0
    theirs = [json.loads(line) for line in told.read_text().splitlines()]
    assert len(theirs) == PLAYS
    for seed in range(PLAYS):
        assert ours[seed] == theirs[seed], f"seed {seed}"
    assert sum(len(player["messages"]) for play in ours for player in play["players"]) > 10 * PLAYS
