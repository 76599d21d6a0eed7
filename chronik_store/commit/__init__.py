"""Group commit among many logs: who writes and syncs when nobody waits, and who zero-fills ahead.

Place: a low room above `threads` and `fs`; `wal` is its client and gives it the steps to run.
Promise: a log that asked for a step gets it, soon, and one at a time; an idle log costs nothing.
Invariant: no thread here waits on a timer, and none holds a lock while it runs a step.
"""
