"""Calls of the C API: both bodies set attributes alike, and enter contexts or say that they cannot."""

from __future__ import annotations

from contextvars import Context, ContextVar

import pytest

import plumews
from plumews.conn.capi import enter_context, leave_context, remove_new, set_attribute

who = ContextVar("who", default="nobody")


class Slotted:
    __slots__ = ("known",)


def test_set_attribute_sets_a_slot() -> None:
    slotted = Slotted()
    set_attribute(slotted, "known", 1)
    assert slotted.known == 1  # type: ignore[attr-defined]


def test_set_attribute_raises_for_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"use conn\.metadata"):
        set_attribute(Slotted(), "unknown", 1)


def test_set_attribute_passes_over_the_setter_of_the_class() -> None:
    class Guarded(Slotted):
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            raise AssertionError

    guarded = Guarded()
    set_attribute(guarded, "known", 1)
    assert guarded.known == 1  # type: ignore[attr-defined]


def test_entered_context_is_current_until_it_is_left() -> None:
    context = Context()
    context.run(who.set, "alice")
    if not enter_context(context):
        assert plumews.BODY == "pure"
        return
    assert (plumews.BODY, who.get()) == ("compiled", "alice")
    leave_context(context)
    assert who.get() == "nobody"


@pytest.mark.skipif(plumews.BODY == "pure", reason="plain Python enters no context")
def test_context_is_not_entered_twice() -> None:
    context = Context()
    enter_context(context)
    with pytest.raises(RuntimeError, match="already entered"):
        enter_context(context)
    leave_context(context)


def test_removed_new_stays_removed() -> None:
    remove_new(plumews.Conn.__base__)
    assert "__new__" not in vars(plumews.Conn.__base__)
