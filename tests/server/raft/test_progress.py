"""What a leader knows of one peer: pure bookkeeping, looked at by itself."""

from __future__ import annotations

from chronik_server.raft.progress import Mode, PeerProgress
from chronik_server.raft.settings import RaftSettings

SETTINGS = RaftSettings(window_bytes=100, window_messages=3)


def replicating(*messages: tuple[int, int, int], match: int = 4) -> PeerProgress:
    """It holds entries up to `match`, and (first, last, bytes) went out at 10, 11, ..."""
    peer = PeerProgress(match + 1, 0.0)
    peer.matched(match, 1.0)
    peer.replicate()
    for now, message in enumerate(messages, 10):
        peer.sent(*message, now=float(now))
    return peer


def test_a_probe_is_one_message_at_a_time_and_moves_nothing() -> None:
    peer = PeerProgress(5, 0.0)
    assert peer.may_send(SETTINGS)
    peer.sent(5, 6, 10, 1.0)
    assert (False, 5) == (peer.may_send(SETTINGS), peer.next_index)
    peer.probe(3)
    assert (True, 3) == (peer.may_send(SETTINGS), peer.next_index)


def test_while_it_replicates_a_window_of_bytes_and_of_messages_may_be_in_flight() -> None:
    peer = replicating((5, 5, 40), (6, 6, 40))
    assert (True, 7, 80) == (peer.may_send(SETTINGS), peer.next_index, peer.inflight_bytes)
    peer.sent(7, 7, 19, 12.0)
    assert not peer.may_send(SETTINGS), "three messages"
    assert not replicating((5, 5, 100)).may_send(SETTINGS), "all the bytes"
    assert replicating((5, 5, 99)).may_send(SETTINGS)


def test_nothing_goes_out_while_the_disk_is_read_or_a_snapshot_is_awaited() -> None:
    peer = replicating()
    peer.is_reading = True
    assert not peer.may_send(SETTINGS)
    peer.is_reading = False
    peer.await_snapshot(9, 3.0)
    assert (Mode.SNAPSHOT, 9, 3.0) == (peer.mode, peer.snapshot_index, peer.snapshot_sent_at)
    assert not peer.may_send(SETTINGS)


def test_an_answer_frees_the_messages_that_it_covers_whole() -> None:
    peer = replicating((5, 6, 10), (7, 8, 20))
    assert peer.matched(7, 12.0)
    assert (7, 9, 20, 1) == (
        peer.match_index, peer.next_index, peer.inflight_bytes, len(peer.inflight),
    )  # fmt: skip
    assert peer.matched(8, 13.0)
    assert (8, 9, 0, 0) == (
        peer.match_index, peer.next_index, peer.inflight_bytes, len(peer.inflight),
    )  # fmt: skip


def test_what_was_known_already_is_no_news_and_takes_nothing_back() -> None:
    peer = replicating((5, 6, 10), match=4)
    assert (False, False) == (peer.matched(4, 50.0), peer.matched(3, 50.0))
    assert (4, 7, 10.0) == (peer.match_index, peer.next_index, peer.moved_at)


def test_a_peer_that_holds_more_than_was_sent_is_asked_for_what_follows() -> None:
    peer = replicating()
    assert peer.matched(20, 12.0)
    assert 21 == peer.next_index


def test_it_is_stalled_when_the_oldest_message_is_not_answered_for_too_long() -> None:
    assert not replicating().is_stalled(1000.0, 1.0), "nothing is in flight"
    peer = replicating((5, 6, 10), (7, 8, 10))
    assert (False, True) == (peer.is_stalled(12.0, 2.0), peer.is_stalled(12.1, 2.0))
    peer.matched(5, 20.0)  # not the whole message, but it moves
    assert not peer.is_stalled(21.0, 2.0)
    peer.arrived(5, 30.0)
    assert peer.is_stalled(30.0, 2.0), "the message is longer than what has arrived"
    peer.arrived(6, 30.0)
    assert not peer.is_stalled(32.0, 2.0)
    peer.arrived(8, 40.0)
    assert not peer.is_stalled(42.0, 2.0)


def test_what_was_lost_is_sent_again_from_its_beginning_but_never_what_is_held() -> None:
    peer = replicating((5, 6, 10), (7, 8, 10))
    peer.retry()
    assert (Mode.PROBE, 5, 0, 0) == (
        peer.mode, peer.next_index, peer.inflight_bytes, len(peer.inflight),
    )  # fmt: skip
    peer.retry()
    assert 5 == peer.next_index
    peer.probe(2)
    assert 5 == peer.next_index


def test_each_change_of_mode_makes_a_read_of_the_disk_that_began_before_it_stale() -> None:
    peer = PeerProgress(1, 0.0)
    changes = (
        peer.replicate, lambda: peer.probe(1), peer.retry, lambda: peer.await_snapshot(1, 0.0),
        lambda: peer.reset(1),
    )  # fmt: skip
    for number, change in enumerate(changes, 1):
        change()
        assert number == peer.epoch


def test_a_peer_that_has_started_anew_holds_nothing_for_certain_but_its_disk_stays_full() -> None:
    peer = replicating((5, 6, 10))
    peer.commit_sent = peer.commit_shown = peer.request_id = 3
    peer.is_suspect = peer.is_full = True
    peer.reset(7)
    assert (Mode.PROBE, 0, 7, 0) == (
        peer.mode, peer.match_index, peer.next_index, len(peer.inflight),
    )  # fmt: skip
    assert (0, 0, 0) == (peer.commit_sent, peer.commit_shown, peer.request_id)
    assert (False, True) == (peer.is_suspect, peer.is_full)
