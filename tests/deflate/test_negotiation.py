"""What is answered to which offer, and which answer a client takes: RFC 7692 section 7.1, case by case."""

from __future__ import annotations

import itertools

import pytest

from plumews import Deflate, InvalidHeader
from plumews.deflate.negotiation import check_answer, negotiate, offer

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
def test_an_offer_is_answered_with_what_will_be_done(offered, by_default, at_most):
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
def test_an_offer_with_something_wrong_is_declined(wrong):
    assert negotiate([f"{NAME}; {wrong}"], Deflate()) is None
    for lines in ([f"{NAME}; {wrong}, {NAME}"], [f"{NAME}; {wrong}", NAME], [f"other; {wrong}, {NAME}"]):
        agreement = negotiate(lines, Deflate())  # and the next one is looked at
        assert agreement is not None
        assert agreement.answer == f"{NAME}; {FRESH}; server_max_window_bits=12"


def test_the_first_offer_that_can_be_kept_is_taken():
    lines = [f"x-deflate-frame, {NAME}; server_max_window_bits=8, {NAME}; server_max_window_bits=10, {NAME}"]
    agreement = negotiate(lines, LARGE)
    assert agreement is not None
    assert agreement.answer == f"{NAME}; server_max_window_bits=10"


@pytest.mark.parametrize("line", ["", "permessage-bzip2", "x-webkit-deflate-frame", "PERMESSAGE-DEFLATE"])
def test_without_an_offer_there_is_none(line):
    assert negotiate([line], Deflate()) is None
    assert negotiate([], Deflate()) is None


def test_a_line_that_is_no_list_of_extensions_is_refused():
    for line in (f"{NAME}; server_max_window_bits=", f"{NAME};;", f"{NAME}; {'a' * 300}="):
        with pytest.raises(InvalidHeader):
            negotiate([line], Deflate())


def all_settings():
    for server, client, bits in itertools.product([False, True], [False, True], [9, 12, 15]):
        yield Deflate(
            server_takeover=server, client_takeover=client, server_window_bits=bits, client_window_bits=24 - bits
        )


def test_a_client_takes_what_any_of_our_servers_answers_to_its_offer():
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


def test_a_client_goes_without_where_the_server_answers_nothing():
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
    "a window that zlib has not": (f"{NAME}; server_max_window_bits=9; client_max_window_bits=8", "8 bits"),
    "no bits at all": (f"{NAME}; server_max_window_bits=10; client_max_window_bits=0", "must be 8 to 15"),
    "a parameter twice": (f"{NAME}; server_max_window_bits=9; server_max_window_bits=9", "stands there twice"),
    "an unknown parameter": (f"{NAME}; server_max_window_bits=9; turbo", "unknown"),
}


@pytest.mark.parametrize(("answer", "why"), NOT_OFFERED.values(), ids=NOT_OFFERED.keys())
def test_a_client_fails_what_it_did_not_offer(answer, why):
    with pytest.raises(InvalidHeader, match=why):
        check_answer([answer], SMALL)


def test_a_client_that_asked_the_server_for_no_takeover_insists_on_it():
    with pytest.raises(InvalidHeader, match="server_no_context_takeover is missing"):
        check_answer([f"{NAME}; server_max_window_bits=12"], Deflate())


def test_a_server_may_promise_more_than_it_was_asked_for():
    answer = f"{NAME}; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8"
    agreement = check_answer([answer], LARGE)
    assert agreement is not None
    assert agreement[:4] == (8, 15, False, False)
