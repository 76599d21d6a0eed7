"""All benchmarks, each in a process of its own, and at the end one table of what was wanted.

Place: over the programs, which it knows by name and by their `--json` alone. Promise: a figure is
what its program printed; one that failed is named, and the others are still run. Invariant: nothing
else of this runs while one of them measures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import count, directory, end_on_sigterm, short

Document = dict[str, Any]

PROGRAMS = (
    "append", "peers", "read", "asyncio", "recovery", "partitions", "tiering", "cold", "cache",
    "search", "indexing", "cluster",
)  # fmt: skip
WITH_S3 = {"tiering", "cold"}
ONLY_S3 = "cold"
"""Left out where no server is named."""
EXAMPLES = """examples:
  python -m benchmarks --quick                 shorter runs, rougher figures
  python -m benchmarks append read             some of them
  python -m benchmarks --realtime --markdown   as docs/benchmarks.md has it
  python -m benchmarks --s3 http://127.0.0.1:7480 tiering cold"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="All benchmarks, or some; at the end a table of what was wanted.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--quick", action="store_true", help="shorter runs, rougher figures")
    parser.add_argument("--realtime", action="store_true", help="SCHED_FIFO (root)")
    parser.add_argument("--dir", type=directory, help="a directory on the disk to measure")
    parser.add_argument("--repetitions", type=count, help="of each case, in turns")
    parser.add_argument("--s3", metavar="ENDPOINT", help="http://host:port of an S3 server")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON array, with all figures")
    shape.add_argument("--markdown", action="store_true", help="the table as Markdown")
    found = parser.parse_args(argv)
    wrong = [name for name in found.names if name not in PROGRAMS]
    if wrong:
        parser.error(f"no benchmark {', '.join(wrong)}; there are {', '.join(PROGRAMS)}")
    if not found.names:
        found.names = [name for name in PROGRAMS if found.s3 is not None or name != ONLY_S3]
    return found


def command(name: str, options: argparse.Namespace) -> list[str]:
    """How one of them is run."""
    line = [sys.executable, "-m", f"benchmarks.bench_{name}", "--json"]
    line += [flag for flag in ("--quick", "--realtime") if getattr(options, flag[2:])]
    for flag in ("--dir", "--repetitions"):
        if getattr(options, flag[2:]) is not None:
            line += [flag, str(getattr(options, flag[2:]))]
    if options.s3 is not None and name in WITH_S3:
        line += ["--s3", options.s3]
    return line


def run(line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run it to its end. Ctrl-C comes here alone, and waits until it has cleaned up."""
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            shown, said = process.communicate()
        except BaseException:
            process.terminate()
            process.communicate()  # behind Ctrl-C `with` waits for a quarter of a second
            raise
    return subprocess.CompletedProcess(line, process.returncode, shown, said)


def measured(name: str, options: argparse.Namespace) -> Document | None:
    """What it printed; None when it failed, and then it has said why."""
    print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
    started = time.monotonic()
    done = run(command(name, options))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if done.returncode == 0:
        found: Document = json.loads(done.stdout)
        return found
    print(f"{name} failed ({done.returncode}):\n{done.stderr}", file=sys.stderr, flush=True)
    return None


def rows(documents: Sequence[Document]) -> list[tuple[str, str, str, str]]:
    """Of all targets: what, measured, wanted, and whether it is met."""
    return [
        (
            f"{document['title']}: {target['text'].strip()}",
            f"{short(target['measured'])} {target['unit']}".strip(),
            f"{'>=' if target['better'] == 'higher' else '<='} {short(target['bound'])}",
            "met" if target["met"] else "MISSED",
        )
        for document in documents
        for target in document["targets"]
    ]


def show(documents: Sequence[Document], *, markdown: bool) -> None:
    """The table, and where it comes from."""
    table = [("what", "measured", "wanted", ""), *rows(documents)]
    if markdown:
        table.insert(1, ("---",) * 4)
        for row in table:
            print(f"| {' | '.join(row)} |")
    else:
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        for row in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    busy = [document["other_processes_cpu_percent"] for document in documents]
    if documents:
        machine = documents[0]["machine"]
        print(
            f"\n{machine['date']}; {machine['cores']} x {machine['cpu']}; {machine['system']}; "
            f"Python {machine['python']}; {machine['disk']}; 1 KiB and fdatasync "
            f"{machine['sync_p50_us']:.0f} us; others took {min(busy):.0f} to {max(busy):.0f} % of "
            "the CPUs"
        )


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    found = [measured(name, options) for name in options.names]
    documents = [each for each in found if each is not None]
    if options.json:
        print(json.dumps(documents))
    else:
        show(documents, markdown=options.markdown)
    return 0 if len(documents) == len(found) else 1


if __name__ == "__main__":
    end_on_sigterm()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
