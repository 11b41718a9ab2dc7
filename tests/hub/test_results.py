"""What a hub says about its work: values that do not change and add up."""

from __future__ import annotations

import dataclasses

import pytest

from plumews.conn.graceful_close import ShutdownReport
from plumews.hub.metrics import HubMetrics
from plumews.hub.results import BroadcastResult, Gap


@pytest.mark.parametrize("report", [BroadcastResult(), ShutdownReport()], ids=lambda report: type(report).__name__)
def test_a_report_is_empty_by_default_and_cannot_be_changed(report):
    assert not any(dataclasses.astuple(report))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(report, dataclasses.fields(report)[0].name, 1)


def test_metrics_have_no_defaults_so_that_no_counter_can_be_forgotten():
    names = [field.name for field in dataclasses.fields(HubMetrics)]
    with pytest.raises(TypeError):
        HubMetrics()  # type: ignore[call-arg]
    metrics = HubMetrics(*range(len(names)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.rooms = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    "report", [BroadcastResult, Gap, HubMetrics, ShutdownReport], ids=lambda report: report.__name__
)
def test_every_field_is_explained(report):
    for field in dataclasses.fields(report):
        assert field.name in (report.__doc__ or "")


@pytest.mark.parametrize(
    ("result", "rejected"),
    [
        (BroadcastResult(), False),
        (BroadcastResult(matched=3, queued=3), False),
        (BroadcastResult(matched=3, queued=1, dropped=2), False),
        (BroadcastResult(matched=3, pending=3), False),
        (BroadcastResult(matched=3, skipped=3), False),
        (BroadcastResult(matched=3, dropped=3), True),
        (BroadcastResult(matched=3, dropped=1, skipped=2), True),
        (BroadcastResult(matched=3, dropped=3, overloaded=True), True),
        (BroadcastResult(invalid=True), True),
        (BroadcastResult(stopped=True), True),
    ],
    ids=[
        "an empty room",
        "all have it",
        "one has it",
        "not decided",
        "all have left",
        "all are full",
        "one is full, the others have left",
        "the job queue is full",
        "a bad name",
        "a stopped hub",
    ],
)
def test_a_broadcast_is_rejected_when_nobody_gets_it_though_somebody_should(result, rejected):
    assert result.rejected is rejected
