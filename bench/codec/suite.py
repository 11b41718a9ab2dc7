"""All contests, for the command and for pytest-benchmark."""

from __future__ import annotations

from . import incoming, masks, outgoing, texts
from .contest import Job

#: In the order of the issue: masks, texts, frames in, frames out.
JOBS: tuple[Job, ...] = (*masks.JOBS, *texts.JOBS, *incoming.JOBS, *outgoing.JOBS)
