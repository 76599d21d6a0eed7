"""What the control entries of a log add up to: segments, garbage, cursors, producers, members.

Place: above `format`, below the rooms that act. Promise: the folded values are a function of the
log alone, the same on every replica; each command carries a precondition that is checked when it
is applied (protocol 8). Invariant: only `fold.apply_command` makes a new `Manifest`.
"""
