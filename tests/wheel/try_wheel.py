"""The installed wheel, with no extra and no source tree: the whole life of a small log.

Run by .ci/run as `python -I tests/wheel/try_wheel.py ENVIRONMENT`, outside the project.
"""

import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import requires, version
from pathlib import Path

import chronik_store as chronik

RECORDS = 1000


def life_of_a_log(directory: Path) -> None:
    bucket = f"file://{directory}/bucket"
    values = [
        f"line {n} of a small log, disk {'full' if n % 100 == 7 else 'fine'}"
        for n in range(RECORDS)
    ]
    with chronik.PartitionLog.open(directory / "data", topic="t", object_store=bucket) as log:
        result = log.append([value.encode() for value in values])
        assert (result.base_offset, result.end_offset) == (0, RECORDS), result
        assert log.seal() == RECORDS
        report = log.run_pipeline_once()
        assert not report.errors, report
        log.append(b"one more")
        assert [hit.offset for hit in log.search("disk AND full", limit=3)] == [907, 807, 707]
    with chronik.PartitionLog.open(directory / "data", topic="t", object_store=bucket) as log:
        assert log.recovery.verdict == "clean", log.recovery
        read = [record.value.decode() for record in log.scan(0)]
        assert read == [*values, "one more"]
    with chronik.open_bucket(bucket, topic="t") as log:
        assert [record.value.decode() for record in log.scan(0)][:RECORDS] == values


def command_line_says_what_is_missing() -> None:
    ran = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "chronik", "--version"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2, ran
    assert 'pip install "chronik[cli]"' in ran.stderr, ran
    assert ran.stderr.count("\n") == 1, ran


if __name__ == "__main__":
    environment = Path(sys.argv[1]).resolve()
    assert environment in Path(chronik.__file__).resolve().parents, chronik.__file__
    assert (Path(chronik.__file__).parent / "py.typed").exists()
    assert requires("chronik")
    with tempfile.TemporaryDirectory() as temporary:
        life_of_a_log(Path(temporary))
    command_line_says_what_is_missing()
    print(
        f"chronik {version('chronik')}: {RECORDS} records, Python {sys.version.split()[0]}: works"
    )
