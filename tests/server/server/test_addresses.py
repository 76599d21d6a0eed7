"""HOST:PORT as people write it, and what cannot be meant."""

import asyncio
from collections.abc import Callable

import pytest

from chronik_server.addresses import Address, parse_address, parse_peers, parse_reachable
from chronik_server.client import ClientOptions
from chronik_server.client.channel import Channel
from chronik_server.client.options import parse_servers
from chronik_server.config import ServerConfig, parse_join
from chronik_server.errors import ConnectionLostError
from chronik_store.errors import ConfigError


def _peer(text: str) -> object:
    return parse_peers(f"1@{text}")


def _advertised(text: str) -> object:
    return ServerConfig.from_env({"CHRONIK_ADVERTISE": text})


LONG = "a" * 64 + ".example"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", ("localhost", 7411)),
        ("b\u00fccher.example:1", ("b\u00fccher.example", 1)),
        ("a" * 63 + ".example:1", ("a" * 63 + ".example", 1)),
        ("[::1]:7000", ("::1", 7000)),
        ("[fe80::1%eth0]", ("fe80::1%eth0", 7411)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_an_address_is_read_as_it_is_meant(text: str, address: tuple[str, int]) -> None:
    assert address == parse_address(text)
    assert address == parse_address(str(parse_address(text)))


@pytest.mark.parametrize("host", [LONG, "a..example", "\ue000.example"])
def test_a_name_that_no_resolver_takes_is_refused_where_it_is_typed(host: str) -> None:
    with pytest.raises(ConfigError, match="no name of a host"):
        parse_address(f"{host}:7411")
    with pytest.raises(ConfigError):
        parse_servers(f"127.0.0.1:1,{host}:7411")


@pytest.mark.parametrize("host", [LONG, "a\0b"])
def test_to_connect_to_such_a_name_is_a_typed_error(host: str) -> None:
    with pytest.raises(ConnectionLostError, match="cannot connect"):
        asyncio.run(Channel.open(Address(host, 7411), ClientOptions(connect_seconds=5.0)))


@pytest.mark.parametrize("read", [parse_servers, parse_join, parse_reachable, _peer, _advertised])
def test_port_0_is_for_who_listens_and_not_for_who_connects(read: Callable[[str], object]) -> None:
    """It would stand in the registry for good, and nobody would reach the node."""
    with pytest.raises(ConfigError, match="nobody can connect to port 0"):
        read("127.0.0.1:0")
    assert Address("127.0.0.1", 0) == parse_address("127.0.0.1:0")


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
@pytest.mark.parametrize("read", [parse_peers, parse_join])
def test_a_list_that_names_no_node_is_refused(read: Callable[[str], object], text: str) -> None:
    """Of a variable that is not set: the node served alone, and its directory could join nobody."""
    with pytest.raises(ConfigError, match="names no node"):
        read(text)


def test_a_port_of_more_digits_than_a_number_may_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        parse_address("localhost:" + "1" * 5000)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
def test_16_a_name_that_no_host_has_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="name of a host"):
        parse_address(f"{host}:7411")
    assert Address("b\u00fccher.example", 1) == parse_address("b\u00fccher.example:1")
