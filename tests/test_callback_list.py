"""Tests of CallbackList: registration, removal, and changes while its callbacks are called."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

from plumews.callback_list import CallbackList


def test_callbacks_are_iterated_in_order_of_registration() -> None:
    callbacks: CallbackList[str] = CallbackList()
    for name in "abc":
        callbacks.add(name)
    assert list(callbacks) == ["a", "b", "c"]
    assert len(callbacks) == 3


def test_empty_list_is_false() -> None:
    callbacks: CallbackList[str] = CallbackList()
    assert not callbacks
    remove = callbacks.add("a")
    assert callbacks
    remove()
    assert not callbacks


def test_remove_ends_one_of_two_equal_registrations() -> None:
    callbacks: CallbackList[str] = CallbackList()
    first = callbacks.add("a")
    callbacks.add("a")
    first()
    first()
    assert list(callbacks) == ["a"]


def test_remove_calls_on_removed_once_and_afterwards() -> None:
    callbacks: CallbackList[str] = CallbackList()
    left: list[int] = []
    remove = callbacks.add("a", lambda: left.append(len(callbacks)))
    remove()
    remove()
    assert left == [0]


def test_clear_removes_all_without_on_removed() -> None:
    callbacks: CallbackList[str] = CallbackList()
    calls: list[str] = []
    remove = callbacks.add("a", lambda: calls.append("removed"))
    callbacks.clear()
    remove()
    assert list(callbacks) == calls == []


def test_callback_added_during_iteration_is_left_out() -> None:
    callbacks: CallbackList[str] = CallbackList()
    callbacks.add("a")
    seen = []
    for name in callbacks:
        seen.append(name)
        callbacks.add("b")
    assert seen == ["a"]
    assert len(callbacks) == 2


def test_callback_removed_during_iteration_is_left_out() -> None:
    callbacks: CallbackList[Callable[[], None]] = CallbackList()
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        remove_second()

    callbacks.add(first)
    remove_second = callbacks.add(lambda: seen.append("second"))
    callbacks.add(lambda: seen.append("third"))
    for callback in callbacks:
        callback()
    assert seen == ["first", "third"]


def test_none_can_be_registered() -> None:
    callbacks: CallbackList[None] = CallbackList()
    calls: list[str] = []
    remove = callbacks.add(None, lambda: calls.append("removed"))
    assert list(callbacks) == [None]
    remove()
    assert calls == ["removed"]


def test_removed_callback_is_freed_although_remove_is_kept() -> None:
    def callback() -> None: ...

    callbacks: CallbackList[Callable[[], None]] = CallbackList()
    remove = callbacks.add(callback)
    alive = weakref.ref(callback)
    del callback
    remove()
    gc.collect()
    assert alive() is None


def test_other_threads_add_and_remove_during_iteration() -> None:
    callbacks: CallbackList[int] = CallbackList()
    for number in range(100):
        callbacks.add(number)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            callbacks.add(-1)()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert [number for number in callbacks if number >= 0] == list(range(100))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
