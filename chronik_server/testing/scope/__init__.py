"""Consensus by exhaustion in a small scope: all schedules that depart a few times from a plain one.

Place: in the server's kit, beside worlds and servers, which are drawn from seeds; tests/server/raft
asks it. Promise: the roles, the log and its recovery are the product's own; a schedule is a list of
words that plays again. Invariant: no chance, no clock of the machine.

    loop      an event loop whose time is moved by hand: each node has its own clock
    views     what goes into a node, and what is seen of it
    testimony what one node has said, held against what its disk was given
    marks     what a node's future depends on
    cell      one node, over all its lives, as a machine: an input, and what came of it
    cells     the same, remembered: an input that was met before costs a look-up
    checks    what must hold between nodes
    moves     what happens to a group by default, and what may happen instead
    search    all schedules with at most so many departures, each situation once
    mixes     plain schedules to depart from
"""
