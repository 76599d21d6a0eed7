"""A bucket that accepts connections and never answers: who asks it first is told soon."""

from __future__ import annotations

import logging
import socket
import time

import pytest

from chronik_store import LogConfig, LogStore, open_bucket
from chronik_store.config import S3Options
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.objectstore import patience
from chronik_store.objectstore.open import open_object_store
from chronik_store.objectstore.patience import first_contact
from chronik_store.objectstore.probe import prove_create_only
from chronik_store.replicated import check_bucket
from chronik_store.restore import restore

READ_SECONDS = 20.0
"""One attempt alone waits so long for its answer."""
PROMPTLY_SECONDS = 10.0


@pytest.fixture
def silent(monkeypatch):
    """Settings of a bucket whose server takes connections and says nothing."""
    monkeypatch.setattr(patience, "FIRST_CONTACT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield LogConfig(
            object_store="s3://bucket/p",
            pipeline_enabled=False,
            s3=S3Options(
                endpoint=f"http://127.0.0.1:{server.getsockname()[1]}",
                access_key="a",
                secret_key="b",
                read_timeout_seconds=READ_SECONDS,
            ),
        )


def test_a_store_opens_soon_and_says_why_nothing_is_uploaded(silent, tmp_path, caplog):
    began = time.monotonic()
    caplog.set_level(logging.WARNING, "chronik_store.bucket")
    with LogStore.open(tmp_path / "data", config=silent) as store:
        assert time.monotonic() - began < PROMPTLY_SECONDS
        store.create_topic("t")
        assert store.partition("t").append(b"value").base_offset == 0
    (said,) = (each.message for each in caplog.records if each.name == "chronik_store.bucket")
    assert "cannot be used now, appends go on" in said
    assert "not finished within" in said


def test_a_node_that_is_to_be_is_told_soon(silent):
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="not finished within"):
        check_bucket(silent, "0" * 16, "s3://bucket/p", env=Environment())
    assert time.monotonic() - began < PROMPTLY_SECONDS


def ask_doctor(url, config, _path):
    env = Environment()
    store = open_object_store(url, env=env, s3=config.s3)
    try:
        prove_create_only(store, threads=env.threads, clock=env.clock, entropy=env.entropy)
    finally:
        store.close()


def ask_restore(url, config, path):
    restore(url, path / "new", config=config)


def ask_reader(url, config, _path):
    open_bucket(url, topic="t", config=config)


@pytest.mark.parametrize("ask", [ask_doctor, ask_restore, ask_reader])
def test_who_looks_at_a_bucket_is_told_soon(silent, tmp_path, ask):
    """They waited for two attempts of a request's own time-out, about a minute."""
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"not finished within 0\.\d s"):
        ask("s3://bucket/p", silent, tmp_path)
    assert time.monotonic() - began < PROMPTLY_SECONDS


class StandingClock:
    def monotonic(self):
        return 5.0


def test_only_a_first_contact_cuts_an_attempt():
    clock = StandingClock()
    with patience.patience(6.0):
        assert patience.cut(None, clock) is None  # a search's fetch goes on for the next search
    with first_contact(clock, asked_at=4.0):
        assert patience.patient_until() == 14.0
        assert [patience.cut(each, clock) for each in (None, 35.0, 3.0)] == [9.0, 9.0, 3.0]
    with first_contact(clock, asked_at=-5.0):
        assert patience.cut(35.0, clock) == 35.0
    assert patience.cut(35.0, clock) == 35.0
    assert patience.patient_until() is None
