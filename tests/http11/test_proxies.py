"""Tests of clients behind trusted proxies."""

from __future__ import annotations

import time

import pytest

import plumews
from plumews import limits
from plumews.errors import InvalidHeader
from plumews.http11.models import Request
from plumews.http11.proxies import Client, Hop, TrustedProxies, address_of, forwarded_hops, x_forwarded_hops
from support.raw_client import Wire, upgrade

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7"])


def request(*lines, peer=("10.0.0.1", 4711), secure=False):
    made = Request("GET", "/", [("Host", "inside:8080"), *(tuple(line.split(": ", 1)) for line in lines)])
    made.remote_address, made.secure = peer, secure
    return made


def client(*lines, proxies=PROXIES, **how):
    return proxies.client_of(request(*lines, **how))


def refused(*lines):
    with pytest.raises(InvalidHeader) as caught:
        client(*lines)
    assert caught.value.status == 400
    return str(caught.value)


def forwarded(*lines):
    return list(forwarded_hops(request(*(f"Forwarded: {line}" for line in lines))))


def x_forwarded(*lines):
    return list(x_forwarded_hops(request(*lines)))


# --- trusted peers --------------------------------------------------------------------------------

SAYS = ("Forwarded: for=198.51.100.1;proto=https;host=chat.example", "X-Forwarded-For: 198.51.100.1")


@pytest.mark.parametrize(
    "peer", [("198.51.100.9", 1), ("11.0.0.1", 1), ("2001:db8:2::1", 1, 0, 0), "", b"", None, ("not an address", 1)]
)
@pytest.mark.parametrize("line", [*SAYS, "Forwarded: ,;=\x22", "X-Forwarded-For: ?", "X-Forwarded-Proto: gopher"])
def test_headers_of_an_untrusted_peer_are_ignored(peer, line):
    assert client(line, peer=peer) == Client(address_of(peer), False)


@pytest.mark.parametrize(
    "peer", [("10.0.0.1", 1), ("::ffff:10.0.0.1", 1, 0, 0), ("2001:db8:1::5", 1, 0, 0), ("192.0.2.7", 1)]
)
@pytest.mark.parametrize("line", SAYS)
def test_trusted_proxy_is_believed_over_ipv4_and_ipv6(peer, line):
    assert client(line, peer=peer).address == "198.51.100.1"


def test_unix_socket_is_trusted_only_if_listed():
    for peer in ("", "/run/x.sock", b"\0x", None):
        assert client(SAYS[0], proxies=TrustedProxies({"unix"}), peer=peer).address == "198.51.100.1"
        assert client(SAYS[0], peer=peer).address == ""


def test_trusted_proxy_without_headers_is_the_client():
    assert client(secure=True) == Client("10.0.0.1", True)


def test_address_of_a_socket_has_no_port_and_ipv4_form():
    assert address_of(("192.0.2.1", 80)) == "192.0.2.1"
    assert address_of(("::ffff:192.0.2.1", 80, 0, 0)) == "192.0.2.1"
    assert address_of(("::ffff", 80, 0, 0)) == "::ffff"
    assert address_of("/run/x.sock") == address_of(b"") == address_of(None) == ""


@pytest.mark.parametrize(
    ("entries", "error", "text"),
    [
        ("10.0.0.1", TypeError, "must be a list of str, such as .* not the str '10.0.0.1'"),
        ([10], TypeError, r"trusted_proxies must be a list of str, such as \[\"10.0.0.0/8\"\]: 10 in it is none"),
        (["10.0.0.1/8"], ValueError, "invalid trusted proxy '10.0.0.1/8': .*has host bits set"),
        (["proxy.example"], ValueError, "expected an address, a network such as 10.0.0.0/8 or 'unix'"),
        (["10.0.0.1:80"], ValueError, "invalid trusted proxy"),
        ([""], ValueError, "invalid trusted proxy ''"),
    ],
)
def test_invalid_trusted_proxies_raise_at_serve(entries, error, text):
    with pytest.raises(error, match=text):
        plumews.serve(print, "127.0.0.1", 0, trusted_proxies=entries)


# --- Forwarded ------------------------------------------------------------------------------------


def test_newest_entry_comes_first_over_all_lines() -> None:
    assert [hop.node for hop in forwarded("for=a, for=b", "for=c")] == ["c", "b", "a"]
    assert forwarded() == forwarded("", " , ;;, ") == []


def test_missing_parts_of_an_entry_are_none() -> None:
    assert forwarded("for=a;proto=https;host=h") == [Hop("a", "https", "h")]
    assert forwarded("proto=https") == [Hop(None, "https", None)]
    assert forwarded("by=b;secret=_x") == [Hop(None, None, None)]  # an entry all the same


def test_empty_scheme_or_host_is_none() -> None:
    for line in ("for=a;proto=;host=", 'for=a;proto="";host=""', "for=a;host=;proto= x"):
        assert forwarded(line) in ([Hop("a", None, None)], [Hop("a", "x", None)])
    assert x_forwarded("X-Forwarded-For: a", "X-Forwarded-Proto: ", 'X-Forwarded-Host: ""') == [Hop("a", None, None)]


def test_parameter_names_match_in_any_case() -> None:
    assert forwarded('FOR="[2001:DB8::1]:80"; Proto=HTTPS ;HOST=Chat.Example') == [
        Hop("[2001:DB8::1]:80", "HTTPS", "Chat.Example")
    ]


def test_quoted_value_may_contain_separators() -> None:
    assert forwarded('for="a, for=b;\\"c\\\\"') == [Hop('a, for=b;"c\\', None, None)]


@pytest.mark.parametrize(
    "before", ["", 'for="', 'for="x', "for", "=", 'for=6.6.6.6;x="', 'x="\\', "for=a;for=b", '"', 'for="a"b']
)
@pytest.mark.parametrize(
    ("own", "hop"),
    [
        ("for=198.51.100.1", Hop("198.51.100.1", None, None)),
        ('for="[2001:db8::1]:80";proto=https;host="a.example"', Hop("[2001:db8::1]:80", "https", "a.example")),
        ('proto=https;for="_x"', Hop("_x", "https", None)),
    ],
)
@pytest.mark.parametrize("line", ["{}, {}", "{},{}", "{}\n{}"])
def test_malformed_element_does_not_hide_the_next(before: str, own: str, hop: Hop, line: str) -> None:
    assert forwarded(*line.format(before, own).split("\n"))[0] == hop


@pytest.mark.parametrize(
    ("value", "node"),
    [
        ("198.51.100.1", "unknown"),
        ("for", "unknown"),
        ("for=", ""),
        ("for =198.51.100.1", "198.51.100.1"),
        ("for= 198.51.100.1 ; proto=https", "198.51.100.1"),
        (";; for = 198.51.100.1 ;;", "198.51.100.1"),
        ("=198.51.100.1", None),
        ("for=[2001:db8::1]", "[2001:db8::1]"),
        ("for=[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("for=2001:db8::1", "2001:db8::1"),
        ("for=fe80::1%eth0", "fe80::1%eth0"),
        ('for="198.51.100.1', '"198.51.100.1'),
        ('for="198.51.100.1"x', '"198.51.100.1"x'),
        ("for=198.51.100.1;for=198.51.100.1", "unknown"),
        ("for=198.51.100.1;FOR=6.6.6.6", "unknown"),
        ("for=198.51.100.1 proto=https", "198.51.100.1 proto=https"),
    ],
)
def test_malformed_element_gives_its_node_or_unknown(value: str, node: str | None) -> None:
    assert forwarded(value)[0].node == node


# --- X-Forwarded-For, -Proto and -Host ------------------------------------------------------------


def test_x_forwarded_for_is_read_from_the_right_over_all_lines() -> None:
    assert x_forwarded("X-Forwarded-For: a, b", "x-forwarded-for: ,c , ") == [Hop(node, None, None) for node in "cba"]
    assert x_forwarded() == []


def test_x_forwarded_values_may_be_quoted() -> None:
    assert x_forwarded('X-Forwarded-For: "[::1]:80" , "', 'X-Forwarded-Proto: "https"') == [
        Hop('"', "https", None),
        Hop("[::1]:80", "https", None),
    ]


def test_single_x_forwarded_scheme_holds_for_every_entry() -> None:
    assert x_forwarded("X-Forwarded-For: a, b", "X-Forwarded-Proto: https", "X-Forwarded-Host: h") == [
        Hop("b", "https", "h"),
        Hop("a", "https", "h"),
    ]
    assert [hop.scheme for hop in x_forwarded("X-Forwarded-For: a, b, c", "X-Forwarded-Proto: wss, http")] == [
        "http",
        "wss",
        "wss",
    ]


def test_x_forwarded_proto_without_for_is_one_entry() -> None:
    assert x_forwarded("X-Forwarded-Proto: http, https", "X-Forwarded-Host: a, b") == [Hop(None, "https", "b")]


# --- address of the client ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["X-Forwarded-For: 6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        (["X-Forwarded-For: 6.6.6.6, 198.51.100.1, 10.0.0.2, 2001:db8:1::3"], "198.51.100.1"),
        (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 198.51.100.1", "x-forwarded-for: 10.9.9.9"], "198.51.100.1"),
        (["X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["X-Forwarded-For: , ,198.51.100.1,, "], "198.51.100.1"),
        (["X-Forwarded-For: <script>, 198.51.100.1"], "198.51.100.1"),
        (["Forwarded: for=6.6.6.6, for=198.51.100.1, for=10.0.0.2"], "198.51.100.1"),
        (["Forwarded: for=6.6.6.6", "forwarded: for=198.51.100.1", "Forwarded: for=10.0.0.2"], "198.51.100.1"),
        (["Forwarded: for=nonsense, for=198.51.100.1"], "198.51.100.1"),
        (['Forwarded: for="', "Forwarded: for=198.51.100.1"], "198.51.100.1"),
    ],
)
def test_first_untrusted_address_from_the_right_is_the_client(lines, address):
    assert client(*lines).address == address


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ('"198.51.100.1:4711"', "198.51.100.1"),
        ('"198.51.100.1:_port"', "198.51.100.1"),
        ('"[2001:db8::1]"', "2001:db8::1"),
        ('"[2001:DB8:0::1]:4711"', "2001:db8::1"),
        ('"[::ffff:198.51.100.1]"', "198.51.100.1"),
        (r'"\[2001:db8\::1]"', "2001:db8::1"),
        ("unknown", "10.0.0.1"),
        ("Unknown", "10.0.0.1"),
        ('"unknown:80"', "10.0.0.1"),
        ("_hidden", "10.0.0.1"),
        ("_SEVKISEK.x-1", "10.0.0.1"),
    ],
)
def test_nodes_of_rfc_7239_section_6_are_parsed(node, address):
    assert client(f"Forwarded: for={node}").address == address
    assert client(f"Forwarded: for=6.6.6.6, for={node}").address == address


def test_hidden_client_counts_as_the_outer_proxy():
    assert client("Forwarded: for=6.6.6.6, for=_x, for=10.0.0.2").address == "10.0.0.2"
    assert client("X-Forwarded-For: 6.6.6.6, unknown, 10.0.0.2").address == "10.0.0.2"


@pytest.mark.parametrize(
    "form", ["X-Forwarded-For: {}", 'X-Forwarded-For: "{}"', "Forwarded: for={}", 'Forwarded: for="{}"']
)
@pytest.mark.parametrize(
    ("node", "address"),
    [
        *((f"198.51.100.1{port}", "198.51.100.1") for port in ("", ":80", ":65535", ":_x", ":")),
        *((f"[2001:DB8::1]{port}", "2001:db8::1") for port in ("", ":80", ":_x", ":")),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1:50000", "2001:db8::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:198.51.100.1:50000", "198.51.100.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%25eth0", "fe80::1"),
        ("[fe80::1%eth0]", "fe80::1"),
        ("[fe80::1%25en0]:443", "fe80::1"),
    ],
)
def test_address_is_parsed_in_every_form_of_a_proxy(form, node, address):
    assert client(form.format(node)).address == address
    assert client(form.format(node), "X-Forwarded-Proto: https" if form[0] == "X" else "X: 1").address == address


NO_ADDRESS = """unknown UNKNOWN unknown:80 _hidden _x:_y _ - null (null) proxy.example localhost me <script> : :80 []
198.51.100.256 198.51.100.1:x 198.51.100.1:123456 198.51.100 1.2.3.4.5 [2001:db8::1 [198.51.100.1] [::1]x [::1]:x unix:
unix:/run/x.sock 2001:db8::g %eth0 0x7f.1 http://198.51.100.1"""


@pytest.mark.parametrize("node", NO_ADDRESS.split())
@pytest.mark.parametrize("form", ["X-Forwarded-For: {}", 'Forwarded: for="{}"'])
def test_node_without_address_counts_as_its_proxy(form, node):
    separator = ", " if form[0] == "X" else '", for="'
    assert client(form.format(node)) == Client("10.0.0.1", False)
    assert client(form.format(f"6.6.6.6{separator}{node}")).address == "10.0.0.1"
    assert client(form.format(f"6.6.6.6{separator}{node}{separator}10.0.0.2")).address == "10.0.0.2"


def test_peer_with_a_zone_is_trusted_by_its_network():
    proxies = TrustedProxies(["fe80::/10"])
    assert client(SAYS[1], proxies=proxies, peer=("fe80::5%eth0", 1, 0, 2)).address == "198.51.100.1"
    hops = "X-Forwarded-For: 198.51.100.1, fe80::7%eth1"
    assert client(hops, proxies=proxies, peer=("fe80::5%eth0", 1, 0, 2)).address == "198.51.100.1"


def test_parameters_may_have_any_order_and_unknown_names():
    line = 'Forwarded: PROTO=HTTPS ; By="[::1]";secret=_x;;Host="Chat.Example:8443"; For="198.51.100.1"'
    assert client(line) == Client("198.51.100.1", True, "chat.example:8443")
    assert client(r'Forwarded: for=198.51.100.1;x="a, for=6.6.6.6;\", "').address == "198.51.100.1"


# --- scheme and host ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "secure"),
    [
        (["X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https"], True),
        (["X-Forwarded-For: 198.51.100.1, 10.0.0.2", "X-Forwarded-Proto: wss"], True),
        (["X-Forwarded-For: 198.51.100.1, 10.0.0.2", "X-Forwarded-Proto: https, http"], True),
        (["X-Forwarded-For: 198.51.100.1, 10.0.0.2", "X-Forwarded-Proto: http, https"], False),
        (["X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https, http"], False),
        (["X-Forwarded-Proto: https"], True),
        (["Forwarded: for=198.51.100.1;proto=https, for=10.0.0.2;proto=http"], True),
        (["Forwarded: for=6.6.6.6;proto=https, for=198.51.100.1;proto=http"], False),
        (["Forwarded: for=6.6.6.6;proto=https, for=198.51.100.1"], False),
        (["Forwarded: proto=https"], True),
        (["X-Forwarded-For: 198.51.100.1"], False),
    ],
)
def test_scheme_is_that_of_the_outermost_trusted_proxy(lines, secure):
    assert client(*lines).secure is secure


def test_missing_scheme_is_that_of_the_socket():
    assert client("X-Forwarded-For: 198.51.100.1", secure=True).secure
    assert not client("X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: http", secure=True).secure


def test_host_is_that_of_the_outermost_trusted_proxy():
    assert client("X-Forwarded-For: 198.51.100.1", "X-Forwarded-Host: chat.example").host == "chat.example"
    assert client("X-Forwarded-Host: evil.example, chat.example").host == "chat.example"
    assert client("Forwarded: for=198.51.100.1;host=chat.example, for=10.0.0.2;host=inside").host == "chat.example"
    assert client("Forwarded: for=198.51.100.1").host is None


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Forwarded", "for=198.51.100.1;proto=gopher"),
        ("Forwarded", 'for=198.51.100.1;host="a b"'),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "https://chat.example/"),
    ],
)
def test_invalid_scheme_or_host_is_400(name, value):
    assert refused(f"{name}: {value}").startswith(f"invalid {name} header: expected ")


@pytest.mark.parametrize(
    ("standard", "older"),
    [
        ("for=6.6.6.6", ["X-Forwarded-For: 198.51.100.1"]),
        ("for=198.51.100.1;proto=https", ["X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: http"]),
        ("for=198.51.100.1;host=a", ["X-Forwarded-For: 198.51.100.1", "X-Forwarded-Host: b"]),
        ("for=unknown", ["X-Forwarded-For: 198.51.100.1"]),
        ("for=198.51.100.1", ["X-Forwarded-For: me"]),
        ('for="', ["X-Forwarded-For: 198.51.100.1"]),
    ],
)
def test_contradicting_forwarded_headers_are_400(standard, older):
    assert refused(f"Forwarded: {standard}", *older) == "the Forwarded and X-Forwarded headers contradict each other"


def test_agreeing_forwarded_headers_are_accepted():
    older = ["X-Forwarded-For: 6.6.6.6, 198.51.100.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: chat.example"]
    assert client("Forwarded: for=198.51.100.1;proto=https", *older) == Client("198.51.100.1", True, "chat.example")


@pytest.mark.parametrize("form", ["X-Forwarded-For: {}", "Forwarded: {}"])
def test_chain_of_trusted_entries_is_bounded(form):
    entry = "10.0.0.2" if form.startswith("X") else "for=10.0.0.2"
    many = form.format(", ".join([entry] * limits.FORWARDED_HOPS))
    assert client(many).address == "10.0.0.2"
    assert f"more than {limits.FORWARDED_HOPS} trusted entries" in refused(f"{many}, {entry}")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "X-Forwarded-For: " + ", " * n + "198.51.100.1",
        lambda n: "X-Forwarded-For: " + "6.6.6.6," * n + "198.51.100.1",
        lambda n: "Forwarded: " + "for=6.6.6.6, " * n + "for=198.51.100.1",
        lambda n: 'Forwarded: x="' + r"\c" * n + '";for=198.51.100.1',
        lambda n: "Forwarded: " + ";" * n + "for=198.51.100.1",
        lambda n: "Forwarded: " + " " * n + "for=198.51.100.1",
        lambda n: "Forwarded: " + ";".join(f"a{m}=1" for m in range(n)) + ";for=198.51.100.1",
    ],
    ids=["empty", "many", "elements", "escapes", "semicolons", "blanks", "parameters"],
)
def test_row_14_headers_of_proxies_take_linear_time(make):
    def took(size):
        asked, start = request(make(size)), time.process_time()
        assert PROXIES.client_of(asked).address == "198.51.100.1"
        return time.process_time() - start

    short = long = float("inf")
    for _ in range(50):  # the machine is not ours alone: the best of many
        short, long = min(short, took(4000)), min(long, took(16000))
        if long <= 4.8 * short:
            break
    assert long <= 4.8 * short


# --- on the live server ---------------------------------------------------------------------------


async def test_handler_and_hooks_see_the_client_behind_a_proxy(start):
    seen = []

    def note(conn, request):
        seen.append((request.client_address, request.secure, request.remote_address[0]))

    async def handler(conn):
        await conn.send(conn.client_address + " " + conn.remote_address[0])

    server = await start(plumews.serve(handler, "127.0.0.1", 0, trusted_proxies=["127.0.0.0/8"], process_request=note))
    async with await Wire.open(server, "/", "Forwarded: for=6.6.6.6, for=198.51.100.1;proto=https") as wire:
        assert await wire.message() == "198.51.100.1 127.0.0.1"
    assert seen == [("198.51.100.1", True, "127.0.0.1")]


async def test_client_is_the_peer_without_trusted_proxies(start):
    async def handler(conn):
        await conn.send(f"{conn.client_address} {conn.request.secure}")

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server, "/", "Forwarded: for=198.51.100.1;proto=https", "X-Forwarded-For: ?") as wire:
        assert await wire.message() == "127.0.0.1 False"


async def test_proxy_on_a_unix_socket_tells_the_client(start, tmp_path):
    async def handler(conn):
        await conn.send(conn.client_address)

    server = await start(plumews.unix_serve(handler, str(tmp_path / "s"), trusted_proxies=["unix"]))
    async with await Wire.open(server, "/", "X-Forwarded-For: 198.51.100.1") as wire:
        assert await wire.message() == "198.51.100.1"


async def test_proxy_without_client_address_is_accepted_as_itself(start):
    async def handler(conn):
        await conn.send(conn.client_address)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, trusted_proxies=["127.0.0.1"]))
    for line in ("X-Forwarded-For: me", "Forwarded: for=unknown", 'Forwarded: for="', "X-Forwarded-For: unix:"):
        async with await Wire.open(server, "/", line) as wire:
            assert await wire.message() == "127.0.0.1"
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=5.6.7.8"))
        assert (status, b"WEBSOCKET_BAD_HEADER" in body) == (400, True)


@pytest.mark.parametrize(
    ("lines", "origin", "status"),
    [
        (["X-Forwarded-Proto: https"], "https://localhost", 101),
        (["X-Forwarded-Proto: https"], "http://localhost", 403),
        ([], "https://localhost", 403),
        (["Forwarded: for=198.51.100.1;proto=https;host=chat.example"], "https://chat.example", 101),
        (["Forwarded: for=198.51.100.1;proto=https;host=chat.example"], "http://chat.example", 403),
        (["Forwarded: for=198.51.100.1;proto=https;host=chat.example"], "https://localhost", 403),
        (["Forwarded: for=198.51.100.1;proto=https;host=chat.example"], "https://chat.example.evil.com", 403),
    ],
)
async def test_row_21_same_origin_is_that_of_the_trusted_proxy(start, lines, origin, status):
    async def handler(conn):
        pass

    server = await start(plumews.serve(handler, "127.0.0.1", 0, trusted_proxies=["127.0.0.1"]))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade("/", f"Origin: {origin}", *lines))
        await wire.read_head()
        assert wire.status == status


async def test_foreign_host_on_loopback_is_403_behind_a_proxy(start):
    server = await start(plumews.serve(print, "127.0.0.1", 0, trusted_proxies=["127.0.0.1"]))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade("/", "X-Forwarded-Host: localhost", host="evil.com"))
        assert (status, b"WEBSOCKET_FORBIDDEN_HOST" in body) == (403, True)
