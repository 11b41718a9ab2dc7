"""The settings of compression: what they are by default, what they may be, and what is said otherwise."""

from __future__ import annotations

import pytest

import plumews
from plumews import ConnConfig, Deflate, SendBehavior, limits
from plumews.deflate.config import inflate_context_size


def test_the_defaults_hold_little_memory():
    deflate = Deflate()
    assert (deflate.server_window_bits, deflate.client_window_bits, deflate.mem_level) == (12, 12, 5)
    assert not deflate.server_takeover
    assert not deflate.client_takeover
    assert (deflate.level, deflate.min_size, deflate.backend) == (6, 128, "zlib")


WRONG = [
    ({"level": 0}, ValueError, "level must be at least 1, not 0"),
    ({"level": 10}, ValueError, "level must be at most 9, not 10"),
    ({"level": True}, TypeError, "level must be an int, not bool"),
    ({"server_window_bits": 8}, ValueError, "server_window_bits must be at least 9, not 8"),
    ({"client_window_bits": 16}, ValueError, "client_window_bits must be at most 15, not 16"),
    ({"client_window_bits": "12"}, TypeError, "client_window_bits must be an int, not str"),
    ({"server_takeover": 1}, TypeError, "server_takeover must be True or False, not 1"),
    ({"client_takeover": None}, TypeError, "client_takeover must be True or False, not None"),
    ({"mem_level": 0}, ValueError, "mem_level must be at least 1, not 0"),
    ({"min_size": -1}, ValueError, "min_size must be at least 0, not -1"),
    ({"min_size": 1 << 63}, ValueError, f"min_size must be at most {limits.COUNT_MOST}, not {1 << 63}"),
    ({"max_ratio": 1 << 63}, ValueError, f"max_ratio must be at most {limits.COUNT_MOST}, not {1 << 63}"),
    ({"max_ratio": 0}, ValueError, "max_ratio must be at least 1, not 0"),
    ({"backend": "brotli"}, ValueError, "backend must be one of zlib, zlib-ng, isal, not 'brotli'"),
    ({"backend": []}, ValueError, "backend must be one of"),
]


@pytest.mark.parametrize(("given", "error", "text"), WRONG, ids=[str(given) for given, _, _ in WRONG])
def test_a_value_out_of_range_is_an_error_that_says_what_would_be_right(given, error, text):
    with pytest.raises(error, match=text):
        Deflate(**given)


def test_inflate_share_raises_that_it_was_removed():
    with pytest.raises(TypeError, match="inflate_share was removed: inflating takes at most half of the time"):
        Deflate(inflate_share=0.5)


def test_deflate_by_name_is_deflate_with_its_defaults():
    assert ConnConfig(compression="deflate").deflate == Deflate()
    assert ConnConfig(compression=Deflate(level=1)).deflate == Deflate(level=1)
    assert ConnConfig().deflate is None


@pytest.mark.parametrize("wrong", ["gzip", True, 9, {"level": 1}], ids=str)
def test_another_compression_is_an_error_where_it_is_given(wrong):
    with pytest.raises(TypeError, match=r"compression must be None, 'deflate' or a plumews\.Deflate, not "):
        plumews.serve(lambda conn: None, "localhost", 0, compression=wrong)


@pytest.mark.parametrize("behavior", [SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE], ids=str)
def test_takeover_does_not_go_with_dropping_what_was_queued(behavior):
    with pytest.raises(ValueError, match=f"SendBehavior.{behavior.name} drops messages that later ones would refer to"):
        ConnConfig(compression=Deflate(server_takeover=True), send_behavior=behavior)
    for settings in (Deflate(), Deflate(client_takeover=True)):  # what is received is not dropped
        assert ConnConfig(compression=settings, send_behavior=behavior).deflate == settings


def test_the_memory_of_an_inflater_is_what_zlib_says_of_itself():
    assert inflate_context_size(15) == (32 + 7) * 1024
