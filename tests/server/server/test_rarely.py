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


def test_nobody_fills_the_memory_with_faults() -> None:
    time = Time()
    rarely = Rarely(time)
    for number in range(3 * KINDS_MAX):
        time.now += 0.001
        assert rarely.is_news(str(number))
    assert KINDS_MAX == len(rarely._said)
    assert not rarely.is_news(str(3 * KINDS_MAX - 1))
