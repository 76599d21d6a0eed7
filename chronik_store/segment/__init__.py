"""Segments: the immutable runs of whole entries that a SEAL closes.

Place: one of the four sibling rooms (wal, segment, objectstore, search); none imports another.
`sealer` writes a segment to a local file, `reader` reads one through any `ByteSource` (a local
file, a cached object), `footers` keeps decoded footers. Promise: the same entries give the same
bytes on every replica; a reader that holds the footer reaches any record with one range read; no
byte is believed before its checksum. Invariant: index and offset run on without a gap from the
first entry to the SEAL, which is the last.
"""
