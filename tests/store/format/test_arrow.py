from __future__ import annotations

from typing import Any

import pytest

from chronik_store.format.record_batch import RecordBatch, StoredBatch

pa = pytest.importorskip("pyarrow")

BATCHES = [
    RecordBatch.build([b"a"]),
    RecordBatch.build([b"a", b"", b"ccc"], keys=[b"k", None, b""]),
    RecordBatch.build([b"a", b"b"], keys=[b"k", b"l"], timestamps_us=[-1, 1 << 62]),
    RecordBatch.build([b"a", b"b"], headers=[(("n", b"v"), ("n", b"w")), ()]),
    RecordBatch.build([bytes(100)] * 9, keys=[None] * 8 + [b"k"], compression="zstd"),
]


@pytest.mark.parametrize("batch", BATCHES, ids=repr)
def test_a_batch_survives_the_way_through_arrow(batch: RecordBatch) -> None:
    table = batch.to_arrow()

    assert batch == RecordBatch.from_arrow(table, compression=batch.codec)
    assert batch == RecordBatch.from_arrow(pa.Table.from_batches([table]), compression=batch.codec)


@pytest.mark.parametrize("batch", BATCHES, ids=repr)
def test_a_stored_batch_shows_offsets_and_times(batch: RecordBatch) -> None:
    stored = StoredBatch(batch.buffer, 100, 9)
    rows = stored.to_arrow().to_pylist()

    assert [
        (record.offset, record.timestamp_us, record.key, record.value, record.headers)
        for record in stored.records()
    ] == [
        (
            row["offset"],
            row["timestamp_us"],
            row["key"],
            row["value"],
            tuple((pair["name"], pair["value"]) for pair in row["headers"]),
        )
        for row in rows
    ]
    stored.to_arrow().validate(full=True)


def test_the_data_is_not_copied() -> None:
    batch = RecordBatch.build([b"x" * 1000] * 10)
    data = pa.py_buffer(batch.buffer)
    column = StoredBatch(batch.buffer, 0, 0).to_arrow().column("value").buffers()[2]

    assert data.address < column.address < data.address + len(batch.buffer)


def test_a_table_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'value'"):
        RecordBatch.from_arrow(pa.table({"key": [b"k"]}))


def test_text_in_a_table_is_refused() -> None:
    with pytest.raises(TypeError, match="encode it"):
        RecordBatch.from_arrow(pa.table({"value": ["text"]}))


@pytest.mark.parametrize(
    "wrong",
    [None, [b"a"], {"value": [b"a"]}, pa.array([b"a"])],
    ids=["None", "list", "dict", "array"],
)
def test_what_is_no_table_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="an Arrow table"):
        RecordBatch.from_arrow(wrong)


def test_a_column_that_is_there_twice_is_a_value_error() -> None:
    column = pa.array([b"a"])
    with pytest.raises(ValueError, match="same name"):
        RecordBatch.from_arrow(pa.Table.from_arrays([column, column], names=["value", "value"]))


@pytest.mark.parametrize(
    "headers",
    [
        pa.array([1]),
        pa.array(["ab"]),
        pa.array([[{"k": "a", "v": b"b"}]]),
        pa.array([[("a", b"b")]], pa.map_(pa.string(), pa.binary())),
        pa.array([[None]], pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
    ],
    ids=["numbers", "text", "other names", "map", "no pair"],
)
def test_headers_of_another_shape_are_a_type_error_that_names_it(headers: Any) -> None:
    with pytest.raises(TypeError, match="headers are of type list"):
        RecordBatch.from_arrow(pa.table({"value": [b"a"], "headers": headers}))
