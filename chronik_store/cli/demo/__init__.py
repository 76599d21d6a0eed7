"""`chronik demo`: four acts in which a log is killed, recovered, lost, and found in its bucket.

Place: on top of the public API, like any program of a user's. Promise: every claim printed is
computed in this run, and one that fails makes the exit code 1. `source` is the input, `writer`
the child process that is killed, `acts` the play, `stage` what is drawn, `command` the verb.
"""
