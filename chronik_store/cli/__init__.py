"""The embedded verbs of the command line: `chronik produce`, `consume`, `search` and the rest.

Place: on top of the library; uses the public API and, where it looks inside files, `format`.
Promise: data goes to stdout (with --json one object a line), everything else to stderr; verbs that
only read open the store read-only, beside any writer; exit 0 done, 1 nothing matched or findings,
2 usage, 3 unavailable, 4 corruption, 130 interrupted. Importing this package loads nothing; click
is loaded by `main`, rich and structlog when there is something to draw or to log.
"""
