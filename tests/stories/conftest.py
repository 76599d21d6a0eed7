"""Stories are told with what a user has: the library's public names, and the command line.

Each begins in an empty directory. `laptop` is a data directory, `BUCKET` a bucket beside it.
"""

from __future__ import annotations

from tests.cli.conftest import _elsewhere, chronik, started

__all__ = ["_elsewhere", "chronik", "started"]
