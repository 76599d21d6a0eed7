import io
import mmap
import os

from chronik_store.objectstore.s3_body import PIECE_BYTES_MAX, BodyReader

DATA = os.urandom(3 * PIECE_BYTES_MAX + 17)


def test_it_reads_like_a_file_in_small_pieces():
    reader = BodyReader(memoryview(DATA))
    pieces = []
    while piece := reader.read():
        pieces.append(piece)
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= PIECE_BYTES_MAX
    assert reader.read(10) == b""


def test_its_size_is_found_by_seeking_and_it_can_be_read_again():
    reader = BodyReader(memoryview(DATA))
    assert reader.seek(0, io.SEEK_END) == len(DATA)
    assert reader.seek(0) == 0
    assert reader.read(5) == DATA[:5]
    assert reader.tell() == 5
    assert reader.seek(-2, io.SEEK_CUR) == 3
    assert reader.read(4) == DATA[3:7]
    assert reader.readable()
    assert reader.seekable()


def test_after_release_the_buffer_is_free_and_the_body_has_ended(tmp_path):
    path = tmp_path / "segment"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(mapped)
    reader = BodyReader(view)
    reader.read(100)
    reader.release()
    view.release()
    mapped.close()  # BufferError if anything still held it
    assert reader.read(100) == b""
