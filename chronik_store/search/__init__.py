"""Full-text search: the query language, the index of a segment (a bundle) and of the tail.

Place: one of the four sibling rooms (wal, segment, objectstore, search); none imports another.
Above `format`; the partition core calls in with records and bytes, and gets offsets back.
Promise: an answer says what was searched; what cannot be searched is a typed error or a range
listed as missing, never an empty result. Nothing of a query is dropped in silence. Invariant: an
index is derived data: it holds no value, is never trusted without its checksums, and can always be
built again from the records. Tantivy is imported by `engine` alone, on first use.

    query       text -> CheckedQuery         tokenizer   what a word is
    documents   records -> documents         engine      Tantivy: build, compile, search
    archive     files <-> one .tar.gz        bundle      a segment's index as one object
    bundle_cache  open bundles, bounded      keeping     which of them, when not all can stay
    tail        the index of what has no bundle yet
    coverage    ranges of offsets            searcher    one answer out of all of these
"""
