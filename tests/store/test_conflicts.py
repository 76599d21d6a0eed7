"""Compare-and-append that lost: what it lost against can be read when the error is raised.

Whoever is told earlier finds nothing to read, and asks again and again: eight threads of a program
did that two hundred times for each append that reached the disk, and so held it up.
"""

from __future__ import annotations

import asyncio

import pytest

import chronik_store as chronik

CONFIG = chronik.LogConfig(pipeline_enabled=False)
FIRST = chronik.RecordBatch.build([b"first"])


def hold_back(log, monkeypatch):
    """What is staged waits until somebody else leads the group."""
    monkeypatch.setattr(log._core, "request_commit", lambda: None)


def broken(log):
    log._core.wal._commit.poison(OSError(5, "broken"))
    raise log._core.wal._commit.poisoned_error()


def test_who_lost_reads_what_it_lost_against(tmp_path, monkeypatch):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        hold_back(log, monkeypatch)
        on_its_way = log.append_nowait(FIRST)
        assert () == log.read(0).records
        with pytest.raises(chronik.OffsetConflictError) as caught:
            log.append(b"second", expected_offset=0)
        assert (1, "not_durable") == (caught.value.end_offset, caught.value.durability)
        assert [b"first"] == [record.value for record in log.read(0)]
        assert (0, 1, False) == on_its_way.result(0)


def test_who_lost_against_what_never_came_hears_that_the_log_has_ended(tmp_path, monkeypatch):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        hold_back(log, monkeypatch)
        on_its_way = log.append_nowait(FIRST)
        monkeypatch.setattr(log._core.wal._commit, "_run_or_poison", lambda: broken(log))
        with pytest.raises(chronik.LogPoisonedError) as caught:
            log.append(b"second", expected_offset=0)
        assert "not_durable" == caught.value.durability
        assert "unknown" == on_its_way.exception(0).durability


def test_so_it_is_in_asyncio_where_the_loop_goes_on_meanwhile(tmp_path, monkeypatch):
    async def main():
        async with chronik.aio.AsyncPartitionLog.open(
            tmp_path / "d", topic="t", config=CONFIG
        ) as log:
            hold_back(log._log, monkeypatch)
            on_its_way = await log.enqueue(FIRST)
            losing = asyncio.ensure_future(log.append(b"second", expected_offset=0))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not losing.done()
            log._log._core.wal.commit_group()
            with pytest.raises(chronik.OffsetConflictError) as caught:
                await losing
            assert (1, "not_durable") == (caught.value.end_offset, caught.value.durability)
            assert [b"first"] == [record.value for record in await log.read(0)]
            assert (0, 1, False) == await on_its_way

    asyncio.run(main())
