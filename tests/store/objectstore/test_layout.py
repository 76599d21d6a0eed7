import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import ConfigError
from chronik_store.objectstore import layout

HASH = "0123456789abcdef"
LOG_ID = "ab" * 16
topics = st.from_regex(r"[A-Za-z0-9._-]{1,200}", fullmatch=True).filter(
    lambda name: name not in {".", ".."}
)
partitions = st.integers(0, 10**10 - 1)
offsets = st.integers(0, 2**64 - 1)
hashes = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)


def test_the_keys_are_those_of_the_documentation():
    assert layout.segment_key("logs", 3, 0, 500, 7, HASH) == (
        f"segments/logs/3/00000000000000000000-00000000000000000500-7-{HASH}.seg"
    )
    assert layout.bundle_key("logs", 3, 0, 500, 7, HASH) == (
        f"indexes/logs/partition-3/00000000000000000000-00000000000000000500-7-{HASH}.tar.gz"
    )
    assert layout.manifest_key("logs", 3, LOG_ID, 57) == (
        f"manifests/logs/3/{LOG_ID}/00000000000000000057.cbor"
    )
    assert layout.tombstone_key("logs", LOG_ID) == f"manifests/logs/{LOG_ID}.tombstone"
    assert layout.probe_key("x") == "probe/x"
    assert layout.STORE_KEY == "STORE"


@given(topics, partitions, offsets, offsets, st.integers(0, 2**63), hashes)
def test_runs_are_parsed_as_they_were_built(topic, partition, a, b, term, content_hash):
    run = (topic, partition, min(a, b), max(a, b), term, content_hash)
    segment, bundle = layout.segment_key(*run), layout.bundle_key(*run)
    assert layout.parse_segment_key(segment) == run
    assert layout.parse_bundle_key(bundle) == run
    assert segment.startswith(layout.segments_prefix(topic, partition))
    assert bundle.startswith(layout.bundles_prefix(topic, partition))
    assert layout.parse_segment_key(bundle) is None
    assert layout.parse_bundle_key(segment) is None
    assert layout.check_key(segment) == segment


@given(topics, partitions, st.binary(min_size=16, max_size=16), offsets)
def test_manifests_and_tombstones_are_parsed_as_they_were_built(topic, partition, raw, number):
    log_id = raw.hex()
    manifest = layout.manifest_key(topic, partition, log_id, number)
    assert layout.parse_manifest_key(manifest) == (topic, partition, log_id, number)
    assert manifest.startswith(layout.manifest_prefix(topic, partition, log_id))
    assert manifest.startswith(layout.manifest_prefix(topic, partition))
    tombstone = layout.tombstone_key(topic, log_id)
    assert layout.parse_tombstone_key(tombstone) == (topic, log_id)
    assert layout.parse_manifest_key(tombstone) is None


@given(offsets, offsets)
def test_byte_order_of_numbers_is_their_order(a, b):
    keys = [layout.manifest_key("t", 0, LOG_ID, number) for number in (a, b)]
    assert (keys[0] < keys[1]) == (a < b)


@given(st.text(max_size=60))
def test_parsing_never_fails(text):
    for parse in (
        layout.parse_segment_key,
        layout.parse_bundle_key,
        layout.parse_manifest_key,
        layout.parse_tombstone_key,
    ):
        assert parse(text) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "ä", "a\n", "a\0", "x" * 201, "../up", "a%2f", "a:b"]
)
def test_a_topic_name_that_would_need_escaping_is_refused(name):
    with pytest.raises(ConfigError, match="topic name"):
        layout.check_topic_name(name)


@pytest.mark.parametrize("name", ["a", "...", ".hidden", "-x", "x" * 200, "A.b_c-9"])
def test_other_topic_names_are_taken(name):
    assert layout.check_topic_name(name) == name


@pytest.mark.parametrize(
    "arguments",
    [
        ("t", -1, 0, 1, 1, HASH),
        ("t", 0, -1, 1, 1, HASH),
        ("t", 0, 2, 1, 1, HASH),
        ("t", 0, 0, 2**64, 1, HASH),
        ("t", 0, 0, 1, -1, HASH),
        ("t", 0, 0, 1, 1, "xyz"),
        ("t", 0, 0, 1, 1, "../../etc/passwd0"),
    ],
)
def test_values_that_do_not_fit_a_key_are_refused(arguments):
    with pytest.raises(ConfigError):
        layout.segment_key(*arguments)
    with pytest.raises(ConfigError):
        layout.bundle_key(*arguments)


def test_ids_that_are_not_ids_are_refused():
    for log_id in ("", "short", LOG_ID.upper(), "../" + LOG_ID[3:]):
        with pytest.raises(ConfigError):
            layout.manifest_key("t", 0, log_id, 1)
        with pytest.raises(ConfigError):
            layout.tombstone_key("t", log_id)
    with pytest.raises(ConfigError):
        layout.probe_key("a/b")


def test_a_key_with_the_longest_names_and_prefix_fits_into_s3():
    from chronik_store.objectstore.open import PREFIX_BYTES_MAX

    longest = layout.bundle_key("t" * 200, 10**10 - 1, 0, 2**64 - 1, 2**63, "a" * 64)
    assert len(longest) + PREFIX_BYTES_MAX + 1 <= 1024
    assert layout.check_key(longest)
    assert max(len(part) for part in longest.split("/")) <= 255


def test_a_prefix_may_be_empty_or_end_anywhere():
    for prefix in ("", "a", "a/", "a/b", "a/b/"):
        assert layout.check_prefix(prefix) == prefix
    for prefix in ("/", "/a", "a//", "../a", "a/../"):
        with pytest.raises(ConfigError):
            layout.check_prefix(prefix)
