"""`chronik doctor`: can a log live here?

Place: a verb. Promise: it tries things instead of reading settings: it syncs a file on the disk,
and on throw-away keys it proves that the bucket creates only what is absent; it says whose store is
there. Exit 1 when something speaks against using the place, 3 when the bucket does not answer.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from chronik_store.cli import exits
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.rendering import duration_text, size_text, time_text
from chronik_store.cli.session import Session
from chronik_store.data_directory import STORE_NAME
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError, UnavailableError
from chronik_store.format.store_file import StoreIdentity, decode_store_identity
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStore
from chronik_store.objectstore.layout import STORE_KEY
from chronik_store.objectstore.open import open_object_store
from chronik_store.objectstore.probe import prove_create_only

SYNCS = 20
PACKAGES = ("chronik", "tantivy", "fsspec", "s3fs", "cbor2", "xxhash", "pyarrow")


@verb("doctor", "chronik doctor", "chronik doctor s3://bucket/prefix", "chronik doctor --json")
@click.argument("url", required=False)
@pass_session
def command(session: Session, url: str | None) -> int:
    """Try the disk, and the bucket at URL (default: that of the settings or the directory)."""
    report: dict[str, Any] = {"versions": _versions()}
    if not session.in_bucket:
        report["disk"] = _disk(session.directory)
    is_asked_about = url is not None
    url = url or session.config().object_store or _bucket_of(session)
    problems: tuple[str, ...] = ()
    if url is not None:
        bucket = report["bucket"] = _bucket(session, url)
        if bucket["store_is_own"] is False and not is_asked_about:
            bucket["problems"] += ("this bucket belongs to another store than the directory",)
        problems = bucket["problems"]
    if session.as_json:
        session.output.json(report)
    else:
        _show(session, report)
    if url is not None and report["bucket"]["unanswered"]:
        return exits.UNAVAILABLE
    return exits.NOTHING if problems else exits.DONE


def _bucket_of(session: Session) -> str | None:
    """The bucket of the data directory, None if that is its own directory or there is none yet."""
    if session.in_bucket:
        return session.directory
    identity = _identity(session)
    return None if identity is None else identity.url


def _identity(session: Session) -> StoreIdentity | None:
    """Of the data directory, if there is one yet."""
    if session.in_bucket:
        return None
    path = Path(session.directory) / STORE_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from error
    return decode_store_identity(data, path=str(path))


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _disk(directory: str) -> dict[str, Any]:
    """Free space, and what one small write and sync takes, where the data is or will be."""
    place = Path(directory).resolve()
    while not place.is_dir():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            seconds = sorted(_sync_seconds(file.fileno(), at) for at in range(SYNCS))
    except OSError as error:
        raise ConfigError(f"cannot write in {place}: {error.strerror}") from error
    usage = shutil.disk_usage(place)
    return {
        "path": str(place),
        "total_bytes": usage.total,
        "free_bytes": usage.free,
        "sync_median_seconds": statistics.median(seconds),
        "sync_worst_seconds": seconds[-1],
    }


def _sync_seconds(descriptor: int, at: int) -> float:
    begun = time.perf_counter()
    os.pwrite(descriptor, bytes(4096), 4096 * at)
    os.fsync(descriptor)
    return time.perf_counter() - begun


def _bucket(session: Session, url: str) -> dict[str, Any]:
    env, own = Environment(), _identity(session)
    store = open_object_store(url, env=env, s3=session.config().s3, must_exist=True)
    try:
        report = prove_create_only(store, threads=env.threads, clock=env.clock, entropy=env.entropy)
        there = None if report.unanswered else _store_in(store)
    finally:
        store.close()
    return {
        "url": report.url,
        "safe": report.safe,
        "unanswered": report.unanswered,
        "problems": report.problems,
        "rights": report.rights,
        "latency_seconds": report.latency_seconds,
        "clock_offset_seconds": report.clock_offset_seconds,
        "store_id": None if there is None else there.store_id,
        "store_created_us": None if there is None else there.created_us,
        "store_is_own": None if own is None or there is None else own.store_id == there.store_id,
    }


def _store_in(store: ObjectStore) -> StoreIdentity | None:
    """Whose bucket it is; None: nobody's yet."""
    try:
        data = store.get(STORE_KEY)
    except ObjectNotFoundError:
        return None
    return decode_store_identity(data, path=f"{store.url}/{STORE_KEY}")


def _whose(session: Session, bucket: dict[str, Any]) -> str:
    if bucket["store_id"] is None:
        return "no store is there yet: the first upload makes one. Is the URL right?"
    found = f"store {bucket['store_id'][:8]}, made {time_text(bucket['store_created_us'])}"
    if bucket["store_is_own"] is None:
        return found
    return f"{found}: {'' if bucket['store_is_own'] else 'not '}that of {session.directory}"


def _show(session: Session, report: dict[str, Any]) -> None:
    output = session.output
    known = [f"{name} {found}" for name, found in report["versions"].items() if found is not None]
    output.line("versions  " + ", ".join(known))
    disk = report.get("disk")
    if disk is not None:
        output.line(
            f"disk      {disk['path']}: {size_text(disk['free_bytes'])} free; a write and sync "
            f"takes {duration_text(disk['sync_median_seconds'])}, at worst "
            f"{duration_text(disk['sync_worst_seconds'])}"
        )
    bucket = report.get("bucket")
    if bucket is None:
        return
    safe = output.styled("safe", "32") if bucket["safe"] else output.styled("NOT safe", "31")
    if bucket["unanswered"]:
        safe = output.styled("not known to be safe: it did not answer everything;", "31")
    output.drawn(f"bucket    {output.shown(bucket['url'])}: {safe} for a log (create-only puts)")
    for name, answer in bucket["rights"].items():
        seconds = bucket["latency_seconds"].get(name)
        took = "" if seconds is None else duration_text(seconds)
        output.line(f"  {name:<8}{took:>10}  {answer}")
    offset = bucket["clock_offset_seconds"]
    if offset is not None:
        output.line(f"  its clock is {offset:+.1f} s from ours")
    if not bucket["unanswered"]:
        output.line(f"  {_whose(session, bucket)}")
    for problem in bucket["problems"]:
        output.drawn("  " + output.styled(f"! {problem}", "31"))
