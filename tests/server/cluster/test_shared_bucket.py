"""One bucket for all nodes: claimed once, looked at by every node, and no other is taken for it."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronik_server import joining, node
from chronik_server.addresses import parse_address
from chronik_server.client import ClientOptions
from chronik_server.config import ServerConfig
from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import ClaimBucket, Command
from chronik_server.protocol.cluster import ClusterDescription
from chronik_server.shared_bucket import SharedBucket
from chronik_store import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import IdentityMismatchError, UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.objectstore.layout import STORE_KEY
from chronik_store.replicated import open_as_node

CLUSTER = "ee" * 16


class Group:
    """Metadata that is committed as soon as it is asked for. It is led here, or not."""

    def __init__(self, state: Metadata, *, leads: bool) -> None:
        self.state = state
        self.is_current = True
        self.part = types.SimpleNamespace(consensus=types.SimpleNamespace(is_ready=leads))

    async def command(self, *wanted: Command) -> None:
        for each in wanted:
            self.state.apply(each, self.state.offset)


class Nodes:
    """Stores of one cluster's nodes, each over the bucket that it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = Metadata()
        self.stores: list[LogStore] = []
        self.faults: list[BaseException] = []

    def open(self, node_id: str, bucket: str, *, leads: bool = False) -> SharedBucket:
        def dispatch(call: Callable[[], None]) -> None:
            call()

        store = open_as_node(
            self.path / node_id, cluster_id=CLUSTER, node_id=node_id, dispatch=dispatch,
            config=config(self.path / bucket), env=Environment(),
        )  # fmt: skip
        self.stores.append(store)
        group: Any = Group(self.state, leads=leads)
        return SharedBucket(group, store, on_fatal=self.faults.append)


def config(bucket: Path) -> LogConfig:
    return LogConfig(object_store=f"file://{bucket}", pipeline_enabled=False)


@pytest.fixture
def nodes(tmp_path: Path) -> Any:
    found = Nodes(tmp_path)
    yield found
    for store in found.stores:
        store.close()


def put(store: LogStore) -> None:
    """What the pipeline does before its first upload."""
    store._bucket.prepare()


def test_nothing_is_put_before_the_cluster_has_said_which_bucket_is_its_own(nodes: Nodes) -> None:
    shared = nodes.open("1", "a")
    with pytest.raises(UnavailableError, match="has not said yet"):
        put(nodes.stores[0])
    asyncio.run(shared.tick())
    with pytest.raises(UnavailableError, match="has not said yet"):
        put(nodes.stores[0])
    assert not (nodes.path / "a" / STORE_KEY).exists()


def test_the_leader_claims_the_bucket_and_the_others_find_the_claim(nodes: Nodes) -> None:
    first, second = nodes.open("1", "a", leads=True), nodes.open("2", "a")
    for _ in range(2):
        asyncio.run(first.tick())
    asyncio.run(second.tick())

    assert nodes.state.bucket is not None
    assert nodes.state.bucket.url == f"file://{nodes.path}/a"
    put(nodes.stores[0])
    put(nodes.stores[1])
    assert nodes.faults == []


@pytest.mark.parametrize("other_claims", [False, True])
def test_a_node_with_another_bucket_ends_by_name_and_puts_nothing_there(
    nodes: Nodes, other_claims: bool
) -> None:
    """other_claims: its bucket holds a claim of a cluster of the same name and ids."""
    asyncio.run(nodes.open("1", "a", leads=True).tick())
    stray = nodes.open("3", "b")
    if other_claims:
        nodes.stores[1]._bucket.claim()
    asyncio.run(stray.tick())

    assert [type(fault) for fault in nodes.faults] == [IdentityMismatchError]
    assert f"{nodes.path}/a" in str(nodes.faults[0])
    with pytest.raises(UnavailableError, match="not the bucket of this cluster"):
        put(nodes.stores[1])
    assert (nodes.path / "b" / STORE_KEY).exists() == other_claims


def test_a_node_is_never_told_to_take_a_bucket_over(nodes: Nodes) -> None:
    """It may be its own cluster's: one that was grown, or made of a log, has a bucket like this."""
    with LogStore.open(nodes.path / "own", config=config(nodes.path / "a")) as store:
        store._bucket.claim()
    with pytest.raises(IdentityMismatchError, match="--join") as caught:
        nodes.open("3", "a")

    assert "chronik restore" not in str(caught.value)


def test_it_is_looked_at_again_in_every_life(nodes: Nodes) -> None:
    asyncio.run(nodes.open("1", "a", leads=True).tick())
    nodes.stores.pop().close()
    (nodes.path / "a" / STORE_KEY).unlink()  # what an empty mount point looks like
    asyncio.run(nodes.open("1", "a", leads=True).tick())

    assert [type(fault) for fault in nodes.faults] == [IdentityMismatchError]
    assert not (nodes.path / "a" / STORE_KEY).exists()


def test_a_bucket_that_does_not_answer_is_no_other_bucket(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(nodes.open("1", "a", leads=True).tick())
    second = nodes.open("2", "a")
    bucket = nodes.stores[1]._bucket.store

    def get(key: str) -> bytes:
        raise UnavailableError("the bucket is away")

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "get", get)
        with pytest.raises(UnavailableError, match="is away"):
            asyncio.run(second.tick())
        with pytest.raises(UnavailableError, match="is away"):
            put(nodes.stores[1])
    assert nodes.faults == []
    asyncio.run(second.tick())
    put(nodes.stores[1])


# --- a node that joins ----------------------------------------------------------------------------


def join(path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, found: ClaimBucket) -> None:
    async def describe(_config: ServerConfig, _env: Environment) -> ClusterDescription:
        return ClusterDescription(CLUSTER, "1", (), bucket=found.digest, bucket_url=found.url)

    monkeypatch.setattr(node, "describe", describe)
    server = ServerConfig(
        data_dir=str(path / "4"), node_id="4", join=(parse_address("127.0.0.1:1"),)
    )

    async def act() -> None:
        backend = await node.open_backend(
            server, config(path / bucket), lambda _error: None, env=Environment()
        )
        await backend._face.close()  # type: ignore[attr-defined]

    asyncio.run(act())


def test_who_joins_with_another_bucket_is_refused_before_anything_is_written(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(nodes.open("1", "a", leads=True).tick())
    assert nodes.state.bucket is not None

    with pytest.raises(IdentityMismatchError, match="not the bucket of this cluster"):
        join(nodes.path, "b", monkeypatch, nodes.state.bucket)
    assert not (nodes.path / "4").exists()
    assert not (nodes.path / "b").exists()

    join(nodes.path, "a", monkeypatch, nodes.state.bucket)
    assert (nodes.path / "4").exists()


def test_a_cluster_that_does_not_answer_is_named_in_the_log_and_in_the_error(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        joining, "ClientOptions", lambda **_: ClientOptions(retry_seconds=0, connect_seconds=1)
    )
    server = ServerConfig(
        data_dir=str(nodes.path / "4"), node_id="4", join=(parse_address("127.0.0.1:1"),)
    )
    with (
        caplog.at_level("INFO", "chronik_server.cluster"),
        pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 does not answer"),
    ):
        asyncio.run(joining.describe(server, Environment()))
    assert "asks 127.0.0.1:1" in caplog.text
