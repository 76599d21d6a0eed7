"""Whole server processes on virtual time: nodes, clients, an operator, a nemesis, and a judge.

Place: in the server's kit, over the store's simulator; `chronik simulate --servers` and
tests/server/servers play it. Promise: equal seeds play equal stories, step by step; what runs is
what `chronik serve` runs, from the bytes of a frame to the threads of its pipeline. Invariant: no
socket, no thread and no clock of the machine; TLS is not played.

    wires           connections: bytes in order, late, cut into pieces, or not at all
    simulated_loop  an asyncio event loop in a thread of a simulated machine
    world           the nodes with their lives, one bucket, and the ways to reach them
    told            what clients were told, and therefore know for ever
    player          what everybody who plays has in common
    clients         who append, read, follow, search
    operator        who makes and deletes topics, hands over, lets nodes join and leave
    nemesis         what befalls machines, disks, clocks, and the ways between them
    rot, cramping   disks and objects that rot, disks that are full for long
    looking         who verifies the bucket, and asks nodes how they are
    letting_go      what retention may take, and what it must
    judge           what must hold when all is healed
    kinds           which of these are in the story of a seed
    story           all of them, from boot to judgement
    planted         known bugs of what surrounds the roles, to put back
    playing         stories by seed: outcome, tallies
"""
