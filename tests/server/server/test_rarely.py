"""A fault that lasts is said at once, and not much."""

from __future__ import annotations

from chronik_server.rarely import KINDS_MAX, SAY_AGAIN_SECONDS, Rarely


class Time:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_the_same_is_said_again_after_a_while_if_it_does_not_pass_by_itself() -> None:
    time = Time()
    rarely = Rarely(time)
    assert (True, True) == (rarely.is_news("a"), rarely.is_news("b", lasts=False))
    time.now += SAY_AGAIN_SECONDS - 1
    assert (False, False) == (rarely.is_news("a"), rarely.is_news("b", lasts=False))
    time.now += 1
    assert (True, False) == (rarely.is_news("a"), rarely.is_news("b", lasts=False))
    rarely.is_over()
    assert (True, True) == (rarely.is_news("a"), rarely.is_news("b", lasts=False))


def test_nobody_fills_the_memory_or_the_log_with_faults() -> None:
    """Each caller from another address is a fault of its own."""
    time = Time()
    rarely = Rarely(time)
    said = sum(rarely.is_news(str(number)) for number in range(3 * KINDS_MAX))
    assert KINDS_MAX == said == len(rarely._said)
    time.now += SAY_AGAIN_SECONDS
    assert rarely.is_news("another")
    assert 1 == len(rarely._said)
