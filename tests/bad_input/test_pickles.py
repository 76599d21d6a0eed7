"""Every error, record, batch, result and config pickles and copies without loss."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil

import pytest

import chronik_store as chronik
from tests.bad_input.kept import CONFIG

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda value, p=protocol: pickle.loads(pickle.dumps(value, p))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.fixture(scope="module")
def errors():
    """Every class below ChronikError that any module of the project defines."""
    for package in ("chronik_store", "chronik_server"):
        for found in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        ):
            if not found.name.endswith("__main__") and ".testing" not in found.name:
                importlib.import_module(found.name)
    classes, queue = [], [chronik.ChronikError]
    while queue:
        cls = queue.pop()
        classes.append(cls)
        queue += cls.__subclasses__()
    return sorted(set(classes), key=lambda cls: f"{cls.__module__}.{cls.__qualname__}")


def made(cls):
    """One of this class, each of its own arguments filled in."""
    given = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name == "message" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name == "durability":
            given[name] = "unknown"
        elif name == "cause":
            given[name] = OSError(5, "Input/output error")
        elif name == "offset_range":
            given[name] = (3, 9)
        elif "str" in str(parameter.annotation):
            given[name] = f"a {name}"
        else:
            given[name] = 7
    return cls("what to do", **given)


def test_every_error_comes_back_whole(errors):
    assert len(errors) > 35
    for cls in errors:
        error = made(cls)
        for name, way in WAYS.items():
            again = way(error)
            assert type(error) is type(again), name
            assert (error.args, str(error)) == (again.args, str(again)), (cls, name)
            assert vars(error) == vars(again), (cls, name)
            assert (error.retriable, error.durability) == (again.retriable, again.durability)


def test_an_error_says_what_it_means_in_words_of_its_own(errors):
    said = [cls.__doc__ for cls in errors]
    assert all(said)
    assert len(set(said)) == len(said)


def test_the_public_errors_are_all_exported(errors):
    public = [cls for cls in errors if cls.__module__ == "chronik_store.errors"]
    assert {cls.__name__ for cls in public} <= set(chronik.__all__)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("pickles") / "d"
    records = [
        chronik.Record(b"needle", b"k", 1_700_000_000_000_000, (("h", b"1"), ("h", b""))),
        chronik.Record(b"\xff\0"),
        chronik.Record(b"", b""),
    ]
    with chronik.LogStore.open(path, config=CONFIG) as store:
        info = store.create_topic("t")
        log = store.partition("t")
        appended = log.append(records)
        log.cursor("c").commit(2)
        log.seal()
        values = {
            "records": records,
            "stored": list(log.scan()),
            "appended": appended,
            "topic": info,
            "pipeline": log.run_pipeline_once(),
            "fetched": log.read(0),
            "found": log.search("needle"),
            "found nothing": log.search("json.nothing:x"),
            "watermarks": log.watermarks,
            "recovery": log.recovery,
            "status": log.status(),
            "store status": store.status(),
            "verified": log.verify(bucket=True, deep=True),
            "finding": chronik.Finding("warning", "here", "look"),
            "batch": chronik.RecordBatch.build([b"a", b"b"], keys=[None, b""]),
            "packed batch": chronik.RecordBatch.build([b"a" * 1000], compression="zstd"),
            "config": CONFIG.replace(s3=chronik.S3Options(secret_key="s", region="r")),
            "s3": chronik.S3Options(endpoint="http://localhost:1"),
        }
    values["restored"] = chronik.restore(f"file://{path}/object_store", f"{path}-2", config=CONFIG)
    return values


NAMES = ["records", "stored", "appended", "topic", "pipeline", "fetched", "found", "found nothing",
         "watermarks", "recovery", "status", "store status", "verified", "finding", "batch",
         "packed batch", "config", "s3", "restored"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_value_comes_back_equal(results, name):
    value = results[name]
    for way, make in WAYS.items():
        again = make(value)
        assert value == again, way
        assert type(value) is type(again), way
        assert repr(value) == repr(again), way


def test_all_results_are_tried_here(results):
    assert set(NAMES) == set(results)


def test_a_secret_is_pickled_and_not_shown(results):
    again = pickle.loads(pickle.dumps(results["config"]))
    assert "s" == again.s3.secret_key
    assert "secret_key" not in repr(again)


def test_a_stored_batch_gives_the_same_records_wherever_it_goes(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append([chronik.Record(b"a", b"k", headers=[("h", b"1")]), b"b"])
        (batch,) = log.read_batches(0)
        expected = batch.records()
        for way, make in WAYS.items():
            again = make(batch)
            assert expected == again.records(), way
            assert (batch.base_offset, batch.end_offset) == (again.base_offset, again.end_offset)
            assert batch.timestamps_us == again.timestamps_us
            assert bytes(batch.value_data) == bytes(again.value_data)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_owns_something_is_neither_pickled_nor_copied(tmp_path, make):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("t")
        log = store.partition("t")
        for owner in (store, log):
            with pytest.raises(TypeError):
                make(owner)


@pytest.mark.parametrize(
    "value", [chronik.Record(b"a"), CONFIG, chronik.RecordBatch.build([b"a"]), chronik.S3Options()]
)
def test_values_are_frozen(value):
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    for name in [field.name for field in fields] or ["value", "buffer", "new"]:
        with pytest.raises(AttributeError):
            setattr(value, name, 1)
    hash(value)
