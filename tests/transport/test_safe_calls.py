"""Tests of calls of registered functions: their context, and the report of their failures."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from plumews.transport.safe_calls import call_safely, in_own_context
from support.fakes import failures

NAME = ContextVar("NAME", default="nobody")


def test_callback_sees_the_context_of_its_registration() -> None:
    seen: list[tuple[str, str]] = []

    def callback(argument: str) -> None:
        seen.append((argument, NAME.get()))

    token = NAME.set("registration")
    registered = in_own_context(callback)
    NAME.reset(token)
    registered("a")
    assert seen == [("a", "registration")]
    assert NAME.get() == "nobody"


def test_each_call_has_a_new_copy_of_the_context() -> None:
    seen: list[str] = []

    def callback() -> None:
        seen.append(NAME.get())
        NAME.set("an earlier call")

    registered = in_own_context(callback)
    registered()
    registered()
    assert seen == ["nobody", "nobody"]


async def test_call_safely_passes_the_arguments() -> None:
    seen: list[tuple[int, ...]] = []
    with failures() as reported:
        call_safely("a test", lambda *args: seen.append(args), 1, 2)
    assert seen == [(1, 2)]
    assert reported == []


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_call_safely_reports_a_failure_to_the_loop(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with failures() as reported:
        call_safely("a test", fail)
    assert [(each["message"], each["exception"]) for each in reported] == [("a test failed", error)]


async def test_call_safely_lets_the_end_of_the_program_pass() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_safely("a test", interrupt)
