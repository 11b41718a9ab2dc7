"""Options of a server: one list of them, and wrong values that raise where they are given."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

import plumews
from plumews.auth.credentials import AuthKeywords, AuthOptions
from plumews.conn.config import ConnConfig, ConnOptions
from plumews.server.options import ServerOptions, TcpKeywords, split_options
from support.raw_client import Wire, upgrade


def handler(conn):
    raise AssertionError


def test_typed_keywords_are_the_fields_of_the_dataclasses():
    of_conn = {field.name for field in dataclasses.fields(ConnConfig)}
    of_server = {field.name for field in dataclasses.fields(ServerOptions)}
    of_auth = {field.name for field in dataclasses.fields(AuthOptions)}
    assert set(ConnOptions.__annotations__) == of_conn
    assert set(AuthKeywords.__annotations__) == of_auth
    assert set(TcpKeywords.__annotations__) == of_conn | of_auth | of_server


@pytest.mark.parametrize("owner", [ServerOptions, AuthOptions, ConnConfig])
def test_options_document_each_field(owner):
    documented = re.findall(r"^        (\w+): ", owner.__doc__.partition("Raises:")[0], re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(owner)]


def test_split_options_leaves_defaults_to_the_dataclasses():
    assert split_options({}) == (ServerOptions(), AuthOptions(), ConnConfig())


def test_split_options_sorts_keywords_by_their_owner():
    given = {"max_size": 7, "open_timeout": 3, "subprotocols": ["a", "b"], "token_cookie": "login"}
    options, auth, config = split_options(given)
    assert (config.max_size, auth.token_cookie) == (7, "login")
    assert (options.open_timeout, options.subprotocols) == (3, ("a", "b"))


def test_server_options_replaced_keep_their_other_fields():
    given = ServerOptions(
        trusted_proxies=["10.0.0.0/8"],
        routes={"/caf\xe9 %": print},
        origins=["https://a.example"],
        extra_headers={"A": "1"},
    )
    changed = dataclasses.replace(given, open_timeout=3)
    assert changed.trusted_proxies is given.trusted_proxies
    assert (changed.routes, changed.origins, dict(changed.extra_headers)) == (given.routes, given.origins, {"A": "1"})


FUNCTIONS = {
    "serve": lambda **options: plumews.serve(handler, "127.0.0.1", 0, **options),
    "unix_serve": lambda **options: plumews.unix_serve(handler, "/nowhere", **options),
    "serve_rooms": lambda **options: plumews.serve_rooms(
        plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0, **options
    ),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_unknown_option_error_lists_the_known_ones(function):
    with pytest.raises(TypeError, match=r"unknown option colour: there are accept_rate, .*max_size, "):
        function(colour=1)


def test_misspelt_option_error_names_the_similar_one():
    with pytest.raises(TypeError, match=r"unknown option maxsize \(do you mean max_size\?\): there are "):
        FUNCTIONS["serve"](maxsize=1)


def test_option_of_another_package_error_names_ours():
    text = r"unknown option on_connect \(here it is on_open\), server_header \(none is sent: leave it out\): there are "
    with pytest.raises(TypeError, match=text):
        FUNCTIONS["serve"](server_header=None, on_connect=handler)


WRONG = {
    "send_behavior": (
        "block",
        TypeError,
        "send_behavior must be SendBehavior.BLOCK, DROP, CLOSE, DROP_OLDEST or CONFLATE, not 'block'",
    ),
    "queue_size": (-1, ValueError, "queue_size must be at least 1, not -1"),
    "max_size": (0, ValueError, "max_size must be at least 1, not 0"),
    "close_timeout": (0, ValueError, "close_timeout must be more than 0 seconds"),
    "open_timeout": (0, ValueError, "open_timeout must be more than 0 seconds, not 0"),
    "max_head": (16, ValueError, "max_head must be 1024 to 1048576, not 16"),
    "max_head of too much": (2**21, ValueError, "max_head must be 1024 to 1048576, not 2097152"),
    "max_head of another kind": ("64K", TypeError, "max_head must be an int, not str"),
    "ping_interval": (-1, ValueError, "ping_interval must be more than 0 seconds, not -1"),
    "ping_interval of 0": (0, ValueError, "ping_interval must be more than 0 seconds, not 0: None sends no pings"),
    "ping_timeout": (0, ValueError, "ping_timeout must be more than 0 seconds, not 0: None waits for ever"),
    "send_timeout": (float("nan"), ValueError, "send_timeout"),
    "ssl": (True, TypeError, "ssl must be an ssl.SSLContext, not bool"),
    "origins": (
        "https://example.com",
        TypeError,
        r"origins must be a list of str, patterns \(re.compile\) and None, such as \[\"https://example.com\"\], not",
    ),
    "origins with a slash": (
        ["https://example.com/"],
        ValueError,
        (
            "invalid origin 'https://example.com/': expected http:// or https://, a host and maybe a port, "
            "without a slash behind it or a"
        ),
    ),
    "allowed_hosts": (["example.com:80"], ValueError, "without a port"),
    "trusted_proxies": (
        True,
        TypeError,
        r"trusted_proxies must be a list of str, such as \[\"10.0.0.0/8\"\], not bool",
    ),
    "routes": (["/x"], TypeError, "routes must be a mapping of paths to functions, not list"),
    "routes without arguments": (
        {"/x": lambda: None},
        TypeError,
        r"the route of /x is called with \(request\), but takes \(\)",
    ),
    "process_request with the arguments of old": (
        lambda path, request_headers, more: None,
        TypeError,
        r"process_request is called with \(conn, request\), but takes \(path, request_headers, more\)",
    ),
    "subprotocols": (
        "chat",
        TypeError,
        r"subprotocols must be a list of str, such as \[\"chat\"\], not the str 'chat'",
    ),
    "process_request": ("no", TypeError, "process_request must be a function, not str"),
    "process_response": (1, TypeError, "process_response must be a function, not int"),
    "select_subprotocol": ([], TypeError, "select_subprotocol must be a function, not list"),
    "extra_headers": ([("Upgrade", "h2c")], ValueError, "header Upgrade belongs to the handshake"),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize(("name", "value", "error", "text"), [(n, *w) for n, w in WRONG.items()], ids=WRONG.keys())
def test_wrong_option_raises_where_it_is_given(function, name, value, error, text):
    with pytest.raises(error, match=text.replace(".", r"\.")):
        function(**{name.partition(" ")[0]: value})


#: Options that take a list, with an entry of each.
LISTS = {
    "origins": "https://a.example",
    "allowed_hosts": "a.example",
    "trusted_proxies": "10.0.0.0/8",
    "subprotocols": "chat",
    "token_sources": "header",
}


def listed(name: str, value: Any) -> dict[str, Any]:
    """Return the option with the options that it needs."""
    return (
        {name: value, "authenticator": plumews.SimpleRoomAuth(bytes(32))} if name == "token_sources" else {name: value}
    )


@pytest.mark.parametrize(("name", "entry"), LISTS.items())
@pytest.mark.parametrize("wrap", [list, tuple, set, frozenset, iter, dict.fromkeys, lambda one: (x for x in one)])
def test_list_option_takes_any_iterable(name, entry, wrap):
    if name == "token_sources":
        assert AuthOptions(token_sources=wrap([entry])).token_sources == (entry,)
        return
    options = ServerOptions(**{name: wrap([entry])})
    if name == "trusted_proxies":
        assert options.trusted_proxies.is_proxy("10.1.2.3")
    else:
        assert getattr(options, name) == (entry,)


@pytest.mark.parametrize(("name", "entry"), LISTS.items())
@pytest.mark.parametrize(
    "wrong", [str, str.encode, lambda entry: [entry.encode()], lambda entry: [entry, 5], lambda entry: 5]
)
def test_list_option_of_wrong_type_raises_with_an_example(name, entry, wrong):
    with pytest.raises(TypeError, match=rf"^{name} must be a list of str.* such as \["):
        plumews.serve(handler, "127.0.0.1", 0, **listed(name, wrong(entry)))


@pytest.mark.parametrize("name", ["allowed_hosts", "trusted_proxies", "subprotocols", "token_sources"])
def test_list_option_with_none_in_it_raises(name):
    with pytest.raises(TypeError, match=rf"^{name} must be a list of str, .* None in it is none$"):
        plumews.serve(handler, "127.0.0.1", 0, **listed(name, [None]))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_lone_origin_pattern_raises_with_an_example(function):
    with pytest.raises(
        TypeError, match=r"^origins must be a list of str, patterns .*, not the Pattern re\.compile\('x'\)"
    ):
        function(origins=re.compile("x"))


@pytest.mark.parametrize("pattern", [".*", r"https?://.+", r"http://[a-z.]+"])
def test_origin_pattern_of_any_site_with_token_cookie_raises(pattern):
    auth = plumews.SimpleRoomAuth(bytes(32))
    with pytest.raises(ValueError, match="with token_cookie the origins must be listed"):
        plumews.serve_rooms(
            plumews.Hub(), auth, "127.0.0.1", 0, token_cookie="t", origins=(o for o in [re.compile(pattern)])
        )


async def test_origins_from_a_generator_hold_for_every_request(start):
    origins = (entry for entry in [re.compile(r"https://[a-z]+\.example\.com")])
    auth = plumews.SimpleRoomAuth(bytes(32))
    server = await start(plumews.serve_rooms(plumews.Hub(), auth, "127.0.0.1", 0, origins=origins, token_cookie="t"))
    for origin, status in [
        ("https://a.example.com", 101),
        ("https://b.example.com", 101),
        ("https://a.example.co", 403),
    ]:
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade("/ws", f"Origin: {origin}"))
            await wire.read_head()
            assert wire.status == status


@pytest.mark.parametrize("name", ["serve", "serve_rooms"])
def test_port_of_wrong_type_raises(name):
    arguments = (plumews.Hub(), plumews.SimpleRoomAuth()) if name == "serve_rooms" else (handler,)
    with pytest.raises(TypeError, match="port must be an int, not str"):
        getattr(plumews, name)(*arguments, "127.0.0.1", "8080")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mode", "unix_serve has it"),
        ("path", "unix_serve has it"),
        ("recovery", "serve_rooms has it"),
        ("history", "the hub has it"),
        ("auth", "serve calls it authenticator"),
    ],
)
def test_option_of_another_function_error_names_it(name, told):
    with pytest.raises(TypeError, match=rf"unknown option {name} \({told}"):
        plumews.serve(lambda conn: None, "127.0.0.1", 0, **{name: 1})
