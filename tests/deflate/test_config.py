"""Options of permessage-deflate and their negotiation (RFC 7692 section 7.1): values, offers and answers."""

from __future__ import annotations

import itertools

import pytest

import plumews
from plumews import ConnConfig, Deflate, InvalidHeader, SendBehavior, limits
from plumews.deflate.config import check_answer, negotiate, offer


def test_defaults_hold_little_memory():
    deflate = Deflate()
    assert (deflate.server_window_bits, deflate.client_window_bits, deflate.mem_level) == (12, 12, 5)
    assert not deflate.server_takeover
    assert not deflate.client_takeover
    assert (deflate.level, deflate.min_size, deflate.backend) == (6, 128, "zlib")


WRONG = [
    ({"level": 0}, ValueError, "level must be 1 to 9, not 0"),
    ({"level": 10}, ValueError, "level must be 1 to 9, not 10"),
    ({"level": True}, TypeError, "level must be an int, not bool"),
    ({"server_window_bits": 8}, ValueError, "server_window_bits must be 9 to 15, not 8"),
    ({"client_window_bits": 16}, ValueError, "client_window_bits must be 9 to 15, not 16"),
    ({"client_window_bits": "12"}, TypeError, "client_window_bits must be an int, not str"),
    ({"server_takeover": 1}, TypeError, "server_takeover must be True or False, not 1"),
    ({"client_takeover": None}, TypeError, "client_takeover must be True or False, not None"),
    ({"mem_level": 0}, ValueError, "mem_level must be 1 to 9, not 0"),
    ({"min_size": -1}, ValueError, "min_size must be at least 0, not -1"),
    ({"min_size": 1 << 63}, ValueError, f"min_size must be at most {limits.COUNT_MOST}, not {1 << 63}"),
    ({"max_ratio": 1 << 63}, ValueError, f"max_ratio must be at most {limits.COUNT_MOST}, not {1 << 63}"),
    ({"max_ratio": 0}, ValueError, "max_ratio must be at least 1, not 0"),
    ({"backend": "brotli"}, ValueError, "backend must be one of zlib, zlib-ng, isal, not 'brotli'"),
    ({"backend": []}, ValueError, "backend must be one of"),
]


@pytest.mark.parametrize(("given", "error", "text"), WRONG, ids=[str(given) for given, _, _ in WRONG])
def test_invalid_value_raises_with_the_allowed_ones(given, error, text):
    with pytest.raises(error, match=text):
        Deflate(**given)


def test_inflate_share_raises_that_it_was_removed():
    with pytest.raises(
        TypeError, match="inflate_share was removed: the share of an event loop that inflating takes is fixed"
    ):
        Deflate(inflate_share=0.5)


def test_compression_by_name_has_all_defaults():
    assert ConnConfig(compression="deflate").deflate == Deflate()
    assert ConnConfig(compression=Deflate(level=1)).deflate == Deflate(level=1)
    assert ConnConfig().deflate is None


@pytest.mark.parametrize("wrong", ["gzip", True, 9, {"level": 1}], ids=str)
def test_invalid_compression_raises_at_once(wrong):
    with pytest.raises(TypeError, match=r"compression must be None, 'deflate' or a plumews\.Deflate, not "):
        plumews.serve(lambda conn: None, "localhost", 0, compression=wrong)


@pytest.mark.parametrize("behavior", [SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE], ids=str)
def test_takeover_with_dropping_of_queued_messages_raises(behavior):
    with pytest.raises(ValueError, match=f"SendBehavior.{behavior.name} drops messages that later ones would refer to"):
        ConnConfig(compression=Deflate(server_takeover=True), send_behavior=behavior)
    for settings in (Deflate(), Deflate(client_takeover=True)):  # what is received is not dropped
        assert ConnConfig(compression=settings, send_behavior=behavior).deflate == settings


# --- negotiation ------------------------------------------------------------------------------------

LARGE = Deflate(server_window_bits=15, client_window_bits=15, server_takeover=True, client_takeover=True)
NAME = "permessage-deflate"
FRESH = "server_no_context_takeover; client_no_context_takeover"

ANSWERS = {
    # what is offered: what is answered by default, and where everything is allowed; without the name
    "": (f"{FRESH}; server_max_window_bits=12", ""),
    "server_no_context_takeover": (f"{FRESH}; server_max_window_bits=12", "server_no_context_takeover"),
    "client_no_context_takeover": (f"{FRESH}; server_max_window_bits=12", "client_no_context_takeover"),
    "client_max_window_bits": (
        f"{FRESH}; server_max_window_bits=12; client_max_window_bits=12",
        "client_max_window_bits=15",
    ),
    "client_max_window_bits=8": (
        f"{FRESH}; server_max_window_bits=12; client_max_window_bits=8",
        "client_max_window_bits=8",
    ),
    'client_max_window_bits="10"': (
        f"{FRESH}; server_max_window_bits=12; client_max_window_bits=10",
        "client_max_window_bits=10",
    ),
    "client_max_window_bits=15": (
        f"{FRESH}; server_max_window_bits=12; client_max_window_bits=12",
        "client_max_window_bits=15",
    ),
    "server_max_window_bits=9": (f"{FRESH}; server_max_window_bits=9", "server_max_window_bits=9"),
    "server_max_window_bits=12": (f"{FRESH}; server_max_window_bits=12", "server_max_window_bits=12"),
    "server_max_window_bits=15": (f"{FRESH}; server_max_window_bits=12", "server_max_window_bits=15"),
    "server_max_window_bits=10; server_no_context_takeover; client_max_window_bits; client_no_context_takeover": (
        f"{FRESH}; server_max_window_bits=10; client_max_window_bits=12",
        f"{FRESH}; server_max_window_bits=10; client_max_window_bits=15",
    ),
}


@pytest.mark.parametrize(("offered", "by_default", "at_most"), [(k, *v) for k, v in ANSWERS.items()])
def test_answer_states_the_parameters_of_the_agreement(offered, by_default, at_most):
    for settings, expected in ((Deflate(), by_default), (LARGE, at_most)):
        agreement = negotiate(["; ".join(filter(None, [NAME, offered]))], settings)
        assert agreement is not None
        assert agreement.answer == "; ".join(filter(None, [NAME, expected]))
        assert agreement.server_takeover is ("server_no_context_takeover" not in expected)
        assert agreement.client_takeover is ("client_no_context_takeover" not in expected)
        assert (
            f"server_max_window_bits={agreement.server_window_bits}" in expected or agreement.server_window_bits == 15
        )
        assert (
            f"client_max_window_bits={agreement.client_window_bits}" in expected or agreement.client_window_bits == 15
        )


BAD_BITS = ['""', "0", "7", "16", "99", "08", "+9", "-9", "9.0", "0x9", "1_0", '" 9"', "nine", "99999999999999999999"]
DECLINED = [
    *(f"{name}={bits}" for name in ("server_max_window_bits", "client_max_window_bits") for bits in BAD_BITS),
    "server_max_window_bits",
    "server_max_window_bits=8",
    "server_max_window_bits=9; server_max_window_bits=9",
    "client_max_window_bits; client_max_window_bits=9",
    "client_max_window_bits; client_max_window_bits",
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "server_no_context_takeover=1",
    'client_no_context_takeover=""',
    "constructor",
    "__class__=9",
    "Server_Max_Window_Bits=9",
    "window_bits=9",
]


@pytest.mark.parametrize("wrong", DECLINED, ids=[f"row3-CVE-2026-2229-{wrong}" for wrong in DECLINED])
def test_invalid_offer_is_declined(wrong):
    assert negotiate([f"{NAME}; {wrong}"], Deflate()) is None
    for lines in ([f"{NAME}; {wrong}, {NAME}"], [f"{NAME}; {wrong}", NAME], [f"other; {wrong}, {NAME}"]):
        agreement = negotiate(lines, Deflate())  # and the next one is looked at
        assert agreement is not None
        assert agreement.answer == f"{NAME}; {FRESH}; server_max_window_bits=12"


def test_first_offer_that_can_be_kept_is_accepted():
    lines = [f"x-deflate-frame, {NAME}; server_max_window_bits=8, {NAME}; server_max_window_bits=10, {NAME}"]
    agreement = negotiate(lines, LARGE)
    assert agreement is not None
    assert agreement.answer == f"{NAME}; server_max_window_bits=10"


@pytest.mark.parametrize("line", ["", "permessage-bzip2", "x-webkit-deflate-frame", "PERMESSAGE-DEFLATE"])
def test_other_extensions_are_declined(line):
    assert negotiate([line], Deflate()) is None
    assert negotiate([], Deflate()) is None


def test_malformed_header_raises():
    for line in (f"{NAME}; server_max_window_bits=", f"{NAME};;", f"{NAME}; {'a' * 300}="):
        with pytest.raises(InvalidHeader):
            negotiate([line], Deflate())


def all_settings():
    for server, client, bits in itertools.product([False, True], [False, True], [9, 12, 15]):
        yield Deflate(
            server_takeover=server, client_takeover=client, server_window_bits=bits, client_window_bits=24 - bits
        )


def test_client_accepts_every_answer_of_our_servers():
    agreed = 0
    for client, server in itertools.product(all_settings(), all_settings()):
        ours = negotiate([offer(client)], server)
        assert ours is not None
        theirs = check_answer([ours.answer], client)
        assert theirs is not None
        assert theirs[:3] == ours[:3]
        # A client may do without what it was granted.
        assert theirs.client_takeover is (ours.client_takeover and client.client_takeover)
        agreed += 1
    assert agreed == 144


def test_client_accepts_a_declined_offer():
    assert check_answer([], Deflate()) is None
    assert check_answer([""], Deflate()) is None


SMALL = Deflate(server_window_bits=10, client_window_bits=10, server_takeover=True)
NOT_OFFERED = {
    "another extension": ("permessage-bzip2", "that were not offered"),
    "it twice": (f"{NAME}, {NAME}", "that were not offered"),
    "a larger window of the server": (
        f"{NAME}; server_max_window_bits=11",
        "server_max_window_bits must be 10 or less",
    ),
    "no window of the server": (NAME, "server_max_window_bits must be 10 or less"),
    "a larger window of the client": (
        f"{NAME}; server_max_window_bits=10; client_max_window_bits=11",
        "client_max_window_bits must be 10 or less",
    ),
    "a window of the client without bits": (
        f"{NAME}; server_max_window_bits=10; client_max_window_bits",
        "client_max_window_bits must be 8 to 15",
    ),
    "no bits at all": (f"{NAME}; server_max_window_bits=10; client_max_window_bits=0", "must be 8 to 15"),
    "a parameter twice": (f"{NAME}; server_max_window_bits=9; server_max_window_bits=9", "stands there twice"),
    "an unknown parameter": (f"{NAME}; server_max_window_bits=9; turbo", "unknown"),
}


@pytest.mark.parametrize(("answer", "why"), NOT_OFFERED.values(), ids=NOT_OFFERED.keys())
def test_client_fails_an_answer_it_did_not_offer(answer, why):
    with pytest.raises(InvalidHeader, match=why):
        check_answer([answer], SMALL)


def test_client_insists_on_no_takeover_of_the_server():
    with pytest.raises(InvalidHeader, match="server_no_context_takeover is missing"):
        check_answer([f"{NAME}; server_max_window_bits=12"], Deflate())


def test_client_accepts_a_window_of_8_bits():
    agreement = check_answer([f"{NAME}; server_max_window_bits=9; client_max_window_bits=8"], SMALL)
    assert agreement is not None
    assert agreement[:4] == (9, 8, True, False)


def test_client_accepts_stricter_parameters():
    answer = f"{NAME}; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8"
    agreement = check_answer([answer], LARGE)
    assert agreement is not None
    assert agreement[:4] == (8, 15, False, False)
