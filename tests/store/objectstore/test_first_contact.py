"""A bucket that accepts connections and never answers, at the start of a store."""

from __future__ import annotations

import logging
import socket
import time

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.config import S3Options
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.objectstore import patience
from chronik_store.objectstore.patience import first_contact
from chronik_store.replicated import check_bucket

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


class StandingClock:
    def monotonic(self):
        return 5.0


def test_only_a_first_contact_cuts_an_attempt():
    clock = StandingClock()
    with patience.patience(6.0):
        assert patience.cut(None, clock) is None  # a search's fetch goes on for the next search
    with first_contact(clock):
        assert patience.patient_until() == 15.0
        assert [patience.cut(each, clock) for each in (None, 35.0, 3.0)] == [10.0, 10.0, 3.0]
    assert patience.cut(35.0, clock) == 35.0
    assert patience.patient_until() is None
