"""The id that a node's directory has for life."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError
from chronik_store.log_store import LogStore
from chronik_store.replicated import node_uuid, open_as_node


def opened(path: Path) -> LogStore:
    return open_as_node(
        path,
        cluster_id="c" * 32,
        node_id="1",
        dispatch=lambda callback: callback(),
        config=LogConfig(pipeline_enabled=False),
        env=Environment(),
    )


def test_it_is_made_once_and_is_another_elsewhere(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as store:
        made = node_uuid(store)
        assert made == node_uuid(store)
    with opened(tmp_path / "a") as store:
        assert made == node_uuid(store)
    with opened(tmp_path / "b") as store:
        assert made != node_uuid(store)
    assert 32 == len(bytes.fromhex(made)) * 2


@pytest.mark.parametrize("damaged", [b"", b"\n", b"5" * 32 + b" 0123456789abcdef\n"])
def test_one_that_is_damaged_is_not_made_anew(tmp_path: Path, damaged: bytes) -> None:
    with opened(tmp_path) as store:
        node_uuid(store)
        (tmp_path / "NODE").write_bytes(damaged)
        with pytest.raises(CorruptionError, match="NODE"):
            node_uuid(store)
    assert damaged == (tmp_path / "NODE").read_bytes()
