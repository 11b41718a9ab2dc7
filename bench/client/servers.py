"""The servers that the clients talk to: uWebSockets, and ours as ``bench.echo`` has it."""

from __future__ import annotations

import os
from typing import ClassVar

from ..echo import contenders as echo
from ..harness import certificate, contender
from ..harness.listening import Ready

#: Names the compiled server (``uws.c``) to its process, and says whether it never sleeps.
PROGRAM, SPINS = "BENCH_UWS", "BENCH_UWS_SPINS"


class Uws(contender.Contender):
    """The server on uWebSockets."""

    servers: ClassVar[str] = "bench.client.servers"


def uwebsockets(port: int, ready: Ready) -> None:
    """It becomes this process, and says by itself that it is ready."""
    program = os.environ[PROGRAM]
    tls = [os.environ[certificate.VARIABLE]] if certificate.VARIABLE in os.environ else []
    os.execv(program, [program, str(port), os.environ[SPINS], *tls])


UWEBSOCKETS = Uws("uwebsockets", None, "socketify")
OWN = next(one for one in echo.CONTENDERS if one.name == echo.CALLBACK)
