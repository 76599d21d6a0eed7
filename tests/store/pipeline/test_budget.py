"""Bytes in flight stay within the limit; turns are taken in order."""

from __future__ import annotations

import threading
import time

import pytest

from chronik_store.errors import LogClosedError
from chronik_store.pipeline import ByteBudget
from chronik_store.threads import SystemThreads


def wait_until(condition: object) -> None:
    for _ in range(500):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.002)
    raise AssertionError("it did not come about")


def test_the_limit_holds_among_threads() -> None:
    budget = ByteBudget(SystemThreads(), 100)
    most: list[int] = []

    def upload() -> None:
        for _ in range(20):
            with budget.take(40):
                most.append(budget.taken_bytes)

    threads = [threading.Thread(target=upload) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 80
    assert budget.taken_bytes == 0


def test_a_body_over_the_limit_goes_alone() -> None:
    budget = ByteBudget(SystemThreads(), 100)
    with budget.take(1000):
        assert budget.taken_bytes == 1000
    assert budget.taken_bytes == 0


def test_a_large_body_is_not_overtaken_by_small_ones() -> None:
    budget = ByteBudget(SystemThreads(), 100)
    order: list[str] = []

    def take(name: str, size: int) -> None:
        with budget.take(size):
            order.append(name)

    with budget.take(60):
        large = threading.Thread(target=take, args=("large", 90))
        large.start()
        wait_until(lambda: len(budget._queue) == 1)
        small = threading.Thread(target=take, args=("small", 1))
        small.start()
        wait_until(lambda: len(budget._queue) == 2)
        assert order == []
    large.join()
    small.join()
    assert order == ["large", "small"]


def test_closing_refuses_those_who_wait_and_those_who_come() -> None:
    budget = ByteBudget(SystemThreads(), 10)
    seen: list[type[BaseException]] = []

    def take() -> None:
        try:
            with budget.take(10):
                raise AssertionError("it was closed")
        except LogClosedError as error:
            seen.append(type(error))

    with budget.take(10):
        thread = threading.Thread(target=take)
        thread.start()
        wait_until(lambda: len(budget._queue) == 1)
        budget.close()
        thread.join()
    assert seen == [LogClosedError]
    with pytest.raises(LogClosedError), budget.take(1):
        pass


def test_a_failed_upload_gives_its_bytes_back() -> None:
    budget = ByteBudget(SystemThreads(), 10)
    with pytest.raises(ValueError, match="503"), budget.take(10):
        raise ValueError("503")
    assert budget.taken_bytes == 0
