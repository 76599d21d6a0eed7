"""docs/configuration.md against the code: names, defaults and bounds of each setting."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest

from chronik_server import config as server
from chronik_server.client import ClientOptions
from chronik_server.client.options import parse_servers
from chronik_store import config
from chronik_store.config import LogConfig, S3Options
from chronik_store.errors import ConfigError
from tests.docs.pages import DOCS

TEXT = (DOCS / "configuration.md").read_text()
SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
BY_HAND = {
    "CHRONIK_DATA_DIR",
    "OBJECT_STORE_BACKEND",
    "LOCAL_STORAGE_PATH",
    "S3_BUCKET",
    "S3_PREFIX",
}


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


ENVIRONMENT = {row[0].strip("`"): row for row in rows(section("Environment"))}
SETTINGS = {row[0].strip("`"): row for row in rows(section("Settings"))}
S3 = {row[0].strip("`"): row for row in rows(section("S3"))}
SERVER_ENVIRONMENT = {row[0].strip("`"): row for row in rows(section("Server environment"))}
SERVER = {row[0].strip("`"): row for row in rows(section("Server settings"))}
CLIENT = {row[0].strip("`"): row for row in rows(section("Client settings"))}
SERVER_BY_HAND = {"CHRONIK_SERVER", "CHRONIK_TLS_CERT", "CHRONIK_TLS_KEY", "CHRONIK_TLS_CA"}


def value(text: str) -> Any:
    """What a cell of the page means."""
    text = text.strip("`")
    words = {"none": None, "on": True, "off": False, "S3Options()": S3Options()}
    if text in words:
        return words[text]
    number, _, unit = text.partition(" ")
    if unit in SIZES:
        return int(number) * SIZES[unit]
    return float(number) if re.fullmatch(r"[0-9.]+", text) else text


def test_each_variable_is_documented_and_each_documented_one_is_read() -> None:
    assert {*config.ENVIRONMENT, *BY_HAND} == set(ENVIRONMENT)


@pytest.mark.parametrize("name", config.ENVIRONMENT)
def test_a_variable_sets_the_field_that_the_page_says(name: str) -> None:
    target, parse = config.ENVIRONMENT[name]
    _, default, sets, _ = ENVIRONMENT[name]
    here = S3Options() if target.startswith("s3.") else LogConfig()

    assert f"`{target}`" == sets
    shown = None if default == "none" else parse(default.strip("`"))
    assert getattr(here, target.removeprefix("s3.")) == shown


def test_each_field_has_a_row() -> None:
    assert {each.name for each in dataclasses.fields(LogConfig)} == set(SETTINGS)
    assert {each.name for each in dataclasses.fields(S3Options)} == set(S3)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_has_the_default_and_the_unit(name: str) -> None:
    _, unit, default, _, effect = SETTINGS[name]
    ending = re.search(r"_(bytes|seconds)(_max)?$", name)
    # In `code` it is the word "none", not the absence of a value.
    shown = default.strip("`") if name in config._CHOICES else value(default)

    assert (ending[1] if ending else "") == unit
    assert getattr(LogConfig(), name) == shown
    assert effect


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_has_the_bounds(name: str) -> None:
    bounds = {low_high[0]: low_high[1:] for low_high in config._BOUNDS}
    shown = SETTINGS[name][3]
    if name in config._CHOICES:
        assert tuple(re.findall(r"`(\w+)`", shown)) == config._CHOICES[name]
    elif name not in bounds:
        assert shown == ""
    elif shown.endswith(" or more"):
        assert (value(shown.removesuffix(" or more")), float("inf")) == bounds[name]
    else:
        low, high = shown.split(" to ")
        assert (value(low), value(high)) == bounds[name]


@pytest.mark.parametrize("name", S3)
def test_a_row_of_s3_has_the_default(name: str) -> None:
    assert getattr(S3Options(), name) == value(S3[name][2])


def test_each_variable_of_a_server_is_documented_and_read() -> None:
    assert {*server.ENVIRONMENT, *SERVER_BY_HAND} - {"CHRONIK_DATA_DIR"} == set(SERVER_ENVIRONMENT)


@pytest.mark.parametrize("name", sorted({*server.ENVIRONMENT} - {"CHRONIK_DATA_DIR"}))
def test_a_variable_of_a_server_sets_the_field_that_the_page_says(name: str) -> None:
    target, parse = server.ENVIRONMENT[name]
    _, default, sets, _ = SERVER_ENVIRONMENT[name]
    here = getattr(server.ServerConfig(), target)

    assert f"`{target}`" == sets
    assert (here or None) == (None if default == "none" else parse(default.strip("`")) or None)


def test_each_field_of_a_server_has_a_row_somewhere() -> None:
    variables = {row[2].strip("`") for row in SERVER_ENVIRONMENT.values()}
    fields = {each.name for each in dataclasses.fields(server.ServerConfig)}

    assert fields == (set(SERVER) | variables) - {""}


@pytest.mark.parametrize("name", SERVER)
def test_a_row_of_a_server_has_the_default_and_the_bounds(name: str) -> None:
    _, unit, default, bounds, _ = SERVER[name]
    known = {bound[0]: bound[1:] for bound in server._BOUNDS}
    ending = re.search(r"_(bytes|seconds)(_max)?$", name)

    assert (ending[1] if ending else "") == unit
    assert getattr(server.ServerConfig(), name) == (
        default.strip("`") if not bounds else value(default)
    )
    assert known.get(name) == (tuple(map(value, bounds.split(" to "))) if bounds else None)


def test_each_setting_of_a_client_has_a_row_with_its_default() -> None:
    defaults = {each.name: each.default for each in dataclasses.fields(ClientOptions)}

    assert defaults == {name: value(row[2]) for name, row in CLIENT.items()}


def test_a_server_without_a_port_is_where_the_page_says() -> None:
    port = re.search(r"`HOST` alone for port (\d+), in all of these and in `-s`", TEXT)
    assert port is not None
    assert server.Address("h", int(port[1])) == server.parse_address("h")
    assert (server.Address("h", int(port[1])),) == parse_servers("h") == server.parse_join("h")
    assert (("1", server.Address("h", int(port[1]))),) == server.parse_peers("1@h")
    assert server.Address("::1", int(port[1])) == server.parse_address("[::1]")


def test_ids_of_nodes_are_those_that_the_page_allows() -> None:
    said = re.search(r"of (\d+) to (\d+) bytes without ((?:`.`(?:, | and )?)+)", TEXT)
    assert said is not None
    least, most, signs = int(said[1]), int(said[2]), re.findall("`(.)`", said[3])
    allowed = {chr(code) for code in range(33, 127)} - set(signs)
    for good in ("a" * least, "a" * most, "rack 1 \N{EN DASH} node", "".join(sorted(allowed))):
        server.check_node_id(good)
    for bad in ("a" * (least - 1), "a" * (most + 1), *(f"a{sign}" for sign in signs)):
        with pytest.raises(ConfigError):
            server.check_node_id(bad)
