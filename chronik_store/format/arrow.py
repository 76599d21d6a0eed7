"""Arrow in and out: columns of a batch as an Arrow record batch, without copying the data.

Place: in `format`; the one importer of pyarrow, itself imported on first use only (extra
`arrow`). Promise: value and key data are shared with the batch's buffer, offsets are copied (their
place in the buffer is not aligned). Invariant: `columns_of(to_arrow(batch))` are the columns that
the batch was built of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from chronik_store.format.stored_batch import StoredBatch

HEADERS_TYPE = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))


def to_arrow(batch: StoredBatch, *, stored: bool) -> pa.RecordBatch:
    """`stored`: with the column offset, and with the entry's time where the batch has none."""
    count = batch.record_count
    times = pa.Array.from_buffers(pa.int64(), count, [None, _copied(batch.timestamps_us)])
    if not stored and not batch.has_timestamps:
        times = pa.nulls(count, pa.int64())
    headers = pa.array(
        [[{"name": name, "value": value} for name, value in pairs] for pairs in batch.headers()],
        HEADERS_TYPE,
    )
    columns: dict[str, Any] = {}
    if stored:
        columns["offset"] = pa.array(range(batch.base_offset, batch.end_offset), pa.int64())
    columns["timestamp_us"] = times
    columns["key"] = _keys(batch)
    columns["value"] = _binary(batch.value_offsets, batch.value_data, count, None)
    columns["headers"] = headers
    return pa.RecordBatch.from_pydict(columns)


def columns_of(table: pa.RecordBatch | pa.Table) -> dict[str, Any]:
    """The arguments of `RecordBatch.build` in a table with a column `value`, and if there `key`,
    `timestamp_us`, `headers`. ValueError or TypeError when they are not what `build` takes.
    """
    if not isinstance(table, pa.RecordBatch | pa.Table):
        raise TypeError(f"a batch is made of an Arrow table, not of a {type(table).__name__}")
    names = table.schema.names
    if "value" not in names:
        raise ValueError(f"no column 'value' among {names}")
    if len(set(names)) < len(names):
        raise ValueError(f"columns of the same name among {names}")
    columns: dict[str, Any] = {"values": table.column("value").to_pylist()}
    if "key" in names:
        keys = table.column("key").to_pylist()
        columns["keys"] = keys if any(key is not None for key in keys) else None
    if "timestamp_us" in names:
        times = table.column("timestamp_us").to_pylist()
        columns["timestamps_us"] = times if any(time is not None for time in times) else None
    if "headers" in names:
        columns["headers"] = _headers_of(table.column("headers"))
    return columns


def _headers_of(column: pa.Array | pa.ChunkedArray) -> list[tuple[tuple[str, bytes], ...]]:
    try:
        return [
            tuple((pair["name"], pair["value"]) for pair in pairs or ())
            for pairs in column.to_pylist()
        ]
    except (KeyError, TypeError) as error:
        raise TypeError(f"headers are of type {HEADERS_TYPE}, not {column.type}") from error


def _keys(batch: StoredBatch) -> pa.Array:
    if not len(batch.key_offsets):
        return pa.nulls(batch.record_count, pa.binary())
    validity = pa.py_buffer(batch.key_validity) if len(batch.key_validity) else None
    return _binary(batch.key_offsets, batch.key_data, batch.record_count, validity)


def _binary(offsets: memoryview, data: memoryview, count: int, validity: Any) -> pa.Array:
    buffers = [validity, _copied(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), count, buffers)


def _copied(column: memoryview) -> pa.Buffer:
    return pa.py_buffer(column.tobytes())
