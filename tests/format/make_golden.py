"""Write the golden files of samples that have none yet:

    python -m tests.format.make_golden                       what is missing; the rest is kept
    python -m tests.format.make_golden --replace NAME ...    these too, whatever they hold

It names the files that differ from what would be written, keeps them, and exits with 1.

A golden file that differs means that stored bytes changed their meaning. Only before the first
release is --replace an answer to that; later the answer is a new version and a new folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.format.samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden" / "v1"


def main(arguments: list[str] | None = None, *, folder: Path = GOLDEN) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replace", nargs="+", default=[], metavar="NAME")
    replace = set(parser.parse_args(arguments).replace)
    differing = 0
    for sample in SAMPLES:
        path = folder / f"{sample.name}.bin"
        data = sample.encode()
        if path.exists() and sample.name not in replace:
            if path.read_bytes() != data and sample.reproducible:
                print(f"differs, kept: {path.name}", file=sys.stderr)
                differing += 1
            continue
        path.write_bytes(data)
        print(f"written: {path.name} ({len(data)} bytes)")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
