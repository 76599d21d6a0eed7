"""The golden files: bytes that were written once must mean the same, and be written the same."""

from __future__ import annotations

import cbor2
import pytest

from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format.batch_layout import BATCH_HEADER_BYTES
from chronik_store.format.record_batch import RecordBatch, StoredBatch
from tests.format.make_golden import GOLDEN, main
from tests.format.samples import SAMPLES, Sample

each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
UNVERSIONED = 8  # magic and version come first in every structure


def golden(sample: Sample) -> bytes:
    return (GOLDEN / f"{sample.name}.bin").read_bytes()


@each_sample
def test_a_golden_file_still_means_what_it_meant(sample: Sample) -> None:
    assert sample.decode(golden(sample)) == sample.value


@each_sample
def test_the_same_value_is_still_written_as_the_same_bytes(sample: Sample) -> None:
    if sample.reproducible:
        assert sample.encode() == golden(sample)
    assert sample.decode(sample.encode()) == sample.value


@each_sample
@pytest.mark.parametrize("buffer", [bytearray, memoryview])
def test_any_buffer_is_read(sample: Sample, buffer: type) -> None:
    assert sample.decode(buffer(golden(sample))) == sample.value


@each_sample
def test_every_flipped_bit_is_noticed_or_harmless(sample: Sample) -> None:
    data = bytearray(golden(sample))
    for place in range(len(data)):
        for bit in range(8):
            data[place] ^= 1 << bit
            try:
                found = sample.decode(bytes(data))
            except (CorruptionError, FutureVersionError):
                pass
            else:
                assert found == sample.value, f"byte {place} bit {bit} changed the value unnoticed"
            data[place] ^= 1 << bit


@each_sample
def test_every_shortened_file_is_refused(sample: Sample) -> None:
    data = golden(sample)
    for length in range(len(data)):
        with pytest.raises(CorruptionError):
            sample.decode(data[:length])


@each_sample
@pytest.mark.parametrize("more", [b"\0", b"\xf5", bytes(512)])
def test_bytes_behind_a_structure_are_refused_where_none_belong(
    sample: Sample, more: bytes
) -> None:
    if sample.trailing:
        assert sample.decode(golden(sample) + more) == sample.value
    else:
        with pytest.raises(CorruptionError):
            sample.decode(golden(sample) + more)


@each_sample
def test_a_newer_version_is_refused_by_name_whatever_follows(sample: Sample) -> None:
    if sample.name.startswith("frame_"):
        pytest.skip("a frame's version is that of its file's header")
    data, seven = golden(sample), (7).to_bytes(4, "little")
    files = [data[:4] + seven + rest for rest in (b"", bytes(200), b"\xff" * 200, data[8:])]
    if sample.name == "segment_footer":  # its trailer is read first, and carries the version
        files = [data[:-28] + seven + data[-24:]]
    for newer in files:
        with pytest.raises(FutureVersionError, match=r"version 7.*upgrade") as caught:
            sample.decode(newer)
        assert (7, 1) == (caught.value.found, caught.value.supported)


@pytest.mark.parametrize("version", [0, 2, 255, 1 << 31])
@each_sample
def test_another_version_is_never_read(sample: Sample, version: int) -> None:
    data = golden(sample)
    with pytest.raises((CorruptionError, FutureVersionError)):
        sample.decode(data[:4] + version.to_bytes(4, "little") + data[UNVERSIONED:])


def test_the_structures_have_different_magics() -> None:
    magics = {}
    for sample in SAMPLES:
        kind = sample.name.partition("_")[0] if "_" in sample.name else sample.name
        magics.setdefault(golden(sample)[:4], set()).add(kind)

    assert all(len(kinds) == 1 for kinds in magics.values()), magics
    assert all(magic.startswith(b"\xf5CK") for magic in magics), "0xf5 occurs in no UTF-8 text"


BATCHES = [sample for sample in SAMPLES if sample.name.startswith("batch_")]


@pytest.mark.parametrize("sample", BATCHES, ids=lambda sample: sample.name)
def test_the_body_of_a_batch_is_plain_cbor(sample: Sample) -> None:
    batch = RecordBatch.from_buffer(golden(sample))
    stored = StoredBatch(batch.buffer, 0, 0)
    body = batch.buffer[BATCH_HEADER_BYTES:]
    if batch.codec == "zstd":
        body = bytes(stored._body)
    times, key_offsets, key_data, validity, value_offsets, value_data, headers = cbor2.loads(body)

    assert (79, 70, 70) == (times.tag, key_offsets.tag, value_offsets.tag)
    assert (stored.key_data, stored.key_validity) == (key_data, validity)
    assert (stored.value_data, stored.value_offsets) == (
        value_data,
        memoryview(value_offsets.value).cast("I"),
    )
    assert stored.key_offsets == memoryview(key_offsets.value).cast("I")
    if batch.has_timestamps:
        assert stored.timestamps_us == memoryview(times.value).cast("q")
    if headers:
        start = 4 * (len(batch) + 1)
        ends = memoryview(headers[:start]).cast("I").tolist()
        assert cbor2.loads(headers[start : start + ends[1]]) == [
            part for pair in stored.records()[0].headers for part in pair
        ]


@pytest.mark.parametrize(
    ("name", "start"), [("checkpoint", 24), ("manifest", 24), ("store_identity", 24)]
)
def test_the_body_of_an_envelope_is_plain_cbor(name: str, start: int) -> None:
    body = cbor2.loads((GOLDEN / f"{name}.bin").read_bytes()[start:])

    assert isinstance(body, dict)
    assert all(isinstance(key, str) for key in body)


def test_golden_files_are_not_overwritten(tmp_path, capsys) -> None:
    assert 0 == main([], folder=tmp_path)
    assert 0 == main([], folder=tmp_path)
    (tmp_path / "manifest.bin").write_bytes(b"older")

    assert 1 == main([], folder=tmp_path)
    assert b"older" == (tmp_path / "manifest.bin").read_bytes()
    assert "differs, kept: manifest.bin" in capsys.readouterr().err
    assert 0 == main(["--replace", "manifest"], folder=tmp_path)
    assert (GOLDEN / "manifest.bin").read_bytes() == (tmp_path / "manifest.bin").read_bytes()


def test_each_golden_file_has_a_sample() -> None:
    assert {f"{sample.name}.bin" for sample in SAMPLES} == {path.name for path in GOLDEN.iterdir()}
