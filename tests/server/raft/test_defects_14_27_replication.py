"""Defects 14 to 27 of raftos, absent from our roles: replication and commit."""

from __future__ import annotations

import asyncio

import pytest

from chronik_server.raft.errors import OutcomeUnknownError
from chronik_server.raft.messages import AppendEntries, AppendEntriesResponse, TimeoutNow
from chronik_server.testing.node import role_of
from chronik_server.testing.world import World
from chronik_store.format.control import Noop
from chronik_store.format.entry import EntryKind
from chronik_store.testing.cluster_log import batch, run_of
from tests.server.raft.alone import Alone, ask, conflict, entries_of, success


def test_14_a_late_or_repeated_message_erases_nothing():
    """5.3, figure 2 step 3: only a real conflict."""
    with Alone() as alone:
        alone.feed("n2", entries_of(1, 0, 0, run_of([1, 1, 1]), commit=3))
        alone.feed("n2", entries_of(1, 0, 0))
        alone.feed("n2", entries_of(1, 0, 0, run_of([1])))

        assert (3, 3) == (alone.replica.last_index, alone.replica.commit_index)


def test_15_an_answer_speaks_of_what_was_compared_only():
    """Figure 2: matchIndex is known to be replicated."""
    with Alone(terms=[1, 1, 1]) as alone:
        alone.feed("n2", entries_of(2, 2, 1))
        alone.feed("n2", entries_of(2, 0, 0, run_of([1])))

        assert [2, 1] == [m.match_index for m in alone.sent(AppendEntriesResponse)]


def test_16_a_follower_commits_no_further_than_what_was_compared():
    """Figure 2 step 5: min(leaderCommit, index of last new entry)."""
    with Alone(terms=[1, 1, 1]) as alone:
        alone.feed("n2", entries_of(2, 0, 0, run_of([1]), commit=3))
        assert 1 == alone.replica.commit_index

        alone.feed("n2", entries_of(2, 2, 1, commit=3))
        assert 2 == alone.replica.commit_index


def test_17_answers_of_an_older_term_do_not_count():
    """5.1: a later leadership starts from nothing."""
    with Alone(terms=[5, 5, 5]) as alone:
        alone.lead()
        for peer in ("n2", "n3"):
            alone.acknowledge(peer, 4, term=3)

        assert 0 == alone.replica.commit_index


def test_18_an_older_term_is_never_committed_by_counting():
    """5.4.2, figure 8."""
    with Alone(5, terms=[1, 2]) as alone:
        alone.lead()
        for peer in ("n2", "n3", "n4", "n5"):
            alone.acknowledge(peer, 2)

        assert 0 == alone.replica.commit_index


def test_18_an_entry_of_its_own_term_commits_all_before_it():
    """5.4.2: the backlog is no hindrance."""
    with Alone(terms=[1] * 50) as alone:
        alone.lead()
        alone.acknowledge("n2", 51)

        assert 51 == alone.replica.commit_index


def test_19_a_leader_begins_with_an_entry_of_its_own():
    """8: a no-op at the start of its term."""
    with Alone(terms=[1]) as alone:
        alone.lead()

        assert 2 == alone.replica.last_index
        assert EntryKind.NOOP == alone.replica.entries(2, 1)[0].header.kind
        assert alone.sent(AppendEntries)[-1].entries[-1].header.kind == EntryKind.NOOP


def test_20_a_proposal_is_answered_when_its_own_entry_is_committed():
    """8: not before, whatever else is."""
    with Alone() as alone:
        alone.lead()
        future = alone.node.consensus.propose([batch(b"mine")])
        alone.run()
        alone.acknowledge("n2", 1)
        assert (1, False) == (alone.replica.commit_index, future.done())

        alone.acknowledge("n2", 2)
        assert 2 == future.result().index


def test_21_concurrent_proposals_are_all_answered_each_with_its_own_place():
    with Alone() as alone:
        alone.lead()
        futures = [alone.node.consensus.propose([batch(b"%d" % n)]) for n in range(20)]
        alone.run()
        alone.acknowledge("n3", 21)

        assert list(range(20)) == [future.result().base_offset for future in futures]


@pytest.mark.parametrize("how", ["deposed", "stopped"])
def test_22_who_waits_learns_that_the_outcome_is_unknown(how):
    with Alone() as alone:
        alone.lead()
        future = alone.node.consensus.propose([batch(b"x")])
        if how == "deposed":
            alone.feed("n2", entries_of(9, 0, 0))
        else:
            alone.node.consensus.stop()

        error = future.exception()
        assert isinstance(error, OutcomeUnknownError)
        assert "unknown" == error.durability


def test_23_a_commit_is_shown_at_once_not_with_the_next_message():
    with Alone() as alone:
        shown: list[int] = []
        alone.node.consensus.on_commit(shown.append)
        alone.lead()
        alone.run()
        alone.acknowledge("n2", 1)
        alone.feed("n2", success(alone.group.term, 1))

        assert [1] == shown


def test_23_followers_of_a_quiet_group_learn_of_a_commit_before_the_next_beat():
    with World(3) as world:
        world.boot_all()
        world.elect()
        world.run(1)
        done = world.commit(b"x")
        world.run(0.02)

        assert {done.index} == {node.replica.commit_index for node in world.nodes.values()}


def test_24_entries_travel_in_batches_bounded_in_bytes():
    """5.3: many entries for efficiency; settings.batch_bytes."""
    with Alone(terms=[1] * 100) as alone:
        alone.lead()
        alone.forget()
        alone.feed("n2", conflict(alone.group.term, 100, 1))

        first = alone.sent(AppendEntries, "n2")[0]
        assert 1 < len(first.entries) < 100
        assert sum(e.header.entry_bytes for e in first.entries) <= 2 * 2000


def test_24_a_window_of_messages_is_in_flight_not_one_and_not_all():
    with Alone(terms=[1] * 200) as alone:
        alone.lead()
        alone.feed("n2", conflict(alone.group.term, 200, 1))
        first = alone.sent(AppendEntries, "n2")[-1]
        alone.forget()
        alone.acknowledge("n2", first.entries[-1].header.index)

        sent = [m for m in alone.sent(AppendEntries, "n2") if m.entries]
        assert 4 == len(sent), "window_messages"
        ends = [m.entries[-1].header.index for m in sent]
        assert [m.prev_log_index for m in sent[1:]] == ends[:-1], "in order, without gaps"


def test_24_a_conflict_is_found_by_terms_not_entry_by_entry():
    """5.3, the optimization: one round for each conflicting term."""
    with Alone(terms=[1] * 10 + [4] * 60) as alone:
        term = alone.lead()
        alone.forget()
        alone.feed("n2", conflict(term, 70, 11, hint_term=3))
        assert 10 == alone.sent(AppendEntries, "n2")[-1].prev_log_index
        alone.feed("n2", conflict(term, 10, 5, hint_term=1))

        assert 9 == alone.sent(AppendEntries, "n2")[-1].prev_log_index


def test_24_the_term_that_both_have_is_kept():
    with Alone(terms=[1] * 10 + [2] * 10 + [4] * 60) as alone:
        term = alone.lead()
        alone.forget()
        alone.feed("n2", conflict(term, 80, 11, hint_term=2))

        assert 20 == alone.sent(AppendEntries, "n2")[-1].prev_log_index


def test_25_beats_that_nobody_answers_leave_nothing_behind():
    with Alone() as alone:
        alone.lead()
        role = role_of(alone.node)
        for _ in range(1000):
            role.heartbeat()

        assert 0 == len(role.response_map)


def test_26_a_follower_with_a_longer_log_does_not_lead_the_leader_past_its_own():
    with Alone(terms=[1, 1]) as alone:
        term = alone.lead()
        alone.feed("n2", conflict(term, 2, 40))
        alone.acknowledge("n2", 3)
        alone.run(0.2)

        progress = role_of(alone.node).replication.peers["n2"]
        assert 3 == progress.match_index
        assert progress.next_index <= alone.replica.last_index + 1


def test_27_a_read_waits_for_a_round_that_began_after_it():
    """8: a leader checks that it has not been deposed before it answers a read."""
    with Alone() as alone:
        term = alone.lead()
        alone.acknowledge("n2", 1)
        answered = role_of(alone.node).request_id
        read = alone.node.consensus.read_barrier()
        alone.run()
        alone.feed("n2", success(term, 1, answered))
        assert not read.done()

        alone.feed("n2", success(term, 1, answered + 1))
        assert 1 == read.result()


def test_27_a_read_at_a_new_leader_waits_for_its_first_entry():
    """8: until then it does not know how far the leader before it had committed."""
    with Alone(terms=[1, 1]) as alone:
        term = alone.lead()
        read = alone.node.consensus.read_barrier()
        alone.run()
        alone.feed("n2", success(term, 2, role_of(alone.node).request_id))
        assert not read.done()

        alone.feed("n2", success(term, 3, role_of(alone.node).request_id))
        assert 3 == read.result()


def test_27_a_read_waits_until_what_a_quorum_has_is_here_too():
    with Alone() as alone:
        term = alone.lead()
        for index in (1, 2):  # the term's first entry, then the members
            alone.acknowledge("n2", index)
        alone.world.network.disk_delays = (1e9,)
        alone.world.propose(alone.node, b"x")
        alone.run()
        for peer in ("n2", "n3"):
            alone.acknowledge(peer, 3)
        assert (3, 2) == (role_of(alone.node).commit_index, alone.replica.commit_index)
        read = alone.node.consensus.read_barrier()
        alone.run()
        for peer in ("n2", "n3"):
            alone.feed(peer, success(term, 3, role_of(alone.node).request_id))
        assert not read.done()

        alone.node.committer.flush()
        alone.run()
        assert 3 == read.result() == alone.replica.commit_index


def test_27_leadership_is_handed_over_without_a_pause():
    """3.10 of the thesis."""
    with World(3) as world:
        world.boot_all()
        old = world.elect()
        target = next(name for name in world.names if name != old.name)
        world.commit(b"before")
        started = world.loop.time()

        world.loop.run_until_complete(old.consensus.transfer(target))
        new = world.until(lambda: (n := world.leader()) and n.name == target and n)

        assert target == new.name
        assert world.loop.time() - started < world.settings.election_seconds_min
        assert 1 == world.commit(b"after").base_offset
        assert [] == world.violations


def test_27_the_successor_has_everything_before_it_is_told_to_start():
    with Alone() as alone:
        term = alone.lead()
        for index in (1, 2):
            alone.acknowledge("n3", index)
        alone.acknowledge("n2", 1)
        moving = alone.node.consensus.transfer("n2")
        alone.acknowledge("n3", 2)
        alone.feed("n2", success(term, 1))
        assert [] == alone.sent(TimeoutNow)

        alone.acknowledge("n2", 2)
        assert [TimeoutNow(term)] == alone.sent(TimeoutNow, "n2")
        assert not moving.done()


def test_27_a_transfer_that_nobody_takes_up_ends_and_the_leader_goes_on():
    with World(3) as world:
        world.boot_all()
        old = world.elect()
        target = next(name for name in world.names if name != old.name)
        world.isolate(target)

        future = old.consensus.transfer(target)
        with pytest.raises(TimeoutError):
            world.loop.run_until_complete(asyncio.wait_for(asyncio.shield(future), 5))

        assert old.consensus.is_ready
        world.commit(b"goes on")


def test_27_nothing_is_proposed_while_leadership_is_handed_over():
    with World(3) as world:
        world.boot_all()
        old = world.elect()
        target = next(name for name in world.names if name != old.name)
        world.isolate(target)
        future = old.consensus.transfer(target)

        assert (False, None) == (old.consensus.is_ready, old.consensus.door.leader_term())
        with pytest.raises(Exception, match="handed over"):
            old.consensus.propose([Noop()])
        with pytest.raises(TimeoutError):
            world.loop.run_until_complete(future)


def test_a_vote_request_of_its_own_term_is_refused_by_the_leader():
    with Alone() as alone:
        term = alone.lead()
        alone.feed("n2", ask(term, "n2", 9, 9))

        assert alone.leads
