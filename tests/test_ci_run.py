"""`.ci/run` leaves out nothing that it was asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_step_that_there_is_not_is_told_before_any_is_run() -> None:
    """The others were run, and what was misspelt passed with them."""
    ran = subprocess.run(
        [ROOT / ".ci/run", "lint", "typs"], capture_output=True, text=True, check=False
    )
    assert (2, ".ci/run: no such step: typs\n") == (ran.returncode, ran.stdout)
