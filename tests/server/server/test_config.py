"""The settings of a server: where they come from, and what is refused before anything listens."""

from __future__ import annotations

import pytest

from chronik_server.addresses import Address
from chronik_server.config import ServerConfig
from chronik_server.tls import TlsOptions
from chronik_store.errors import ConfigError


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_strangers_are_not_served_in_the_clear(listen: str) -> None:
    with pytest.raises(ConfigError, match="CHRONIK_TLS_CERT"):
        ServerConfig(listen=Address(listen, 7411)).check_exposure()
    tls = TlsOptions(certificate="c", key="k")
    with pytest.raises(ConfigError, match="CHRONIK_AUTH_TOKEN"):
        ServerConfig(listen=Address(listen, 7411), tls=tls).check_exposure()
    with pytest.raises(ConfigError):
        ServerConfig(listen=Address(listen, 7411), auth_token="t").check_exposure()
    ServerConfig(listen=Address(listen, 7411), tls=tls, auth_token="t").check_exposure()
    mutual = TlsOptions(certificate="c", key="k", ca="a")
    ServerConfig(listen=Address(listen, 7411), tls=mutual).check_exposure()
    ServerConfig(listen=Address(listen, 7411), insecure=True).check_exposure()


def test_settings_come_from_the_environment_and_hide_secrets() -> None:
    environ = {
        "CHRONIK_LISTEN": "127.0.0.1:9",
        "CHRONIK_NODE_ID": "b",
        "CHRONIK_PEERS": "a@h1:1,b@h2:2",
        "CHRONIK_AUTH_TOKEN": "hunter2",
        "CHRONIK_TLS_CA": "/ca",
    }
    config = ServerConfig.from_env(environ, node_id="a")

    assert (Address("127.0.0.1", 9), "a") == (config.listen, config.node_id)
    assert (("a", Address("h1", 1)), ("b", Address("h2", 2))) == config.peers
    assert TlsOptions(ca="/ca") == config.tls
    assert "hunter2" not in repr(config)
    for bad in ({"CHRONIK_LISTEN": "x:y"}, {"CHRONIK_PEERS": "a"}, {"CHRONIK_INSECURE": "maybe"}):
        with pytest.raises(ConfigError):
            ServerConfig.from_env(bad)


@pytest.mark.parametrize(("text", "is_on"), [("on", True), ("YES", True), (" off ", False)])
def test_truth_is_said_as_in_every_other_variable(text: str, is_on: bool) -> None:
    assert ServerConfig.from_env({"CHRONIK_INSECURE": text}).insecure is is_on


def test_20_an_empty_token_is_no_token() -> None:
    for empty in ("", " "):
        with pytest.raises(ConfigError, match="auth_token"):
            ServerConfig(auth_token=empty)
        with pytest.raises(ConfigError, match="auth_token_also is empty"):
            ServerConfig(auth_token="t", auth_token_also=empty)


def test_a_second_token_is_hidden_and_needs_a_first() -> None:
    with pytest.raises(ConfigError, match="set auth_token, too"):
        ServerConfig.from_env({"CHRONIK_AUTH_TOKEN_ALSO": "hunter2"})
    config = ServerConfig.from_env(
        {"CHRONIK_AUTH_TOKEN": "x", "CHRONIK_AUTH_TOKEN_ALSO": "hunter2"}
    )
    assert "hunter2" not in repr(config)
    assert config.auth_token_also == "hunter2"


@pytest.mark.parametrize("token", ["s" * 4097, "\udcff\udcfe"])
def test_a_token_that_nobody_could_say_is_refused_and_not_shown(token: str) -> None:
    """A server that has it answers nobody, and its nodes not each other."""
    with pytest.raises(ConfigError, match="auth_token: it ") as caught:
        ServerConfig(auth_token=token)
    assert token not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "4096" in str(caught.value) or "UTF-8" in str(caught.value)
