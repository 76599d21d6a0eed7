"""A setting that cannot be meant is a ConfigError that names it, before anything is opened."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

import chronik_store as chronik
from chronik_store.config import _BOUNDS, _S3_BOUNDS, ENVIRONMENT, object_store_url
from tests.bad_input.kept import CONFIG, opened, stored

BAD = {
    "flag": ["maybe", "2", "-1", "yes please", "нет"],
    "integer": ["1.5", "1e6", "64MB", "one", "0x10", "", " ", "nan", "-", "1" * 5000],
    "seconds": ["1m", "soon", "nan", "--1", "1,5"],
}
KIND = {bool: "flag", int: "integer", float: "seconds"}
PARSED = {
    name: KIND[type(parse("1"))]
    for name, (_, parse) in ENVIRONMENT.items()
    if type(parse("1")) in KIND
}


def test_each_variable_that_is_parsed_is_tried_here():
    assert set(ENVIRONMENT) - set(PARSED) == {
        "S3_REGION", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "CHRONIK_UPLOAD",
    }  # fmt: skip


@pytest.mark.parametrize("name", PARSED)
def test_an_unreadable_value_names_its_variable(name):
    for text in BAD[PARSED[name]]:
        if text == "":
            continue  # unset, by a shell's hand
        with pytest.raises(chronik.ConfigError) as caught:
            chronik.LogConfig.from_env({name: text})
        assert name in str(caught.value)


@pytest.mark.parametrize("name", [name for name, kind in PARSED.items() if kind != "flag"])
def test_a_value_out_of_bounds_is_refused_with_the_bounds(name):
    field = ENVIRONMENT[name][0]
    low, high = next((low, high) for each, low, high in _BOUNDS if each == field)
    texts = [str(int(low) - 1)] + ([str(int(high) + 1)] if high < math.inf else [])
    for text in texts:
        with pytest.raises(chronik.ConfigError, match=f"{name}='{text}': {field} is "):
            chronik.LogConfig.from_env({name: text})


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"CHRONIK_UPLOAD": "some"}, r"CHRONIK_UPLOAD='some': .*\('leader', 'all'\)"),
        ({"OBJECT_STORE_BACKEND": "ftp"}, "use local, s3, gcs, azure or memory"),
        ({"OBJECT_STORE_BACKEND": "S3"}, "use local, s3"),
        ({"OBJECT_STORE_BACKEND": "s3"}, "needs S3_BUCKET"),
        ({"OBJECT_STORE_BACKEND": "gcs", "S3_BUCKET": ""}, "needs S3_BUCKET"),
        ({"OBJECT_STORE_BACKEND": "azure", "S3_PREFIX": "x"}, "needs S3_BUCKET"),
    ],
)
def test_a_backend_that_cannot_be_meant_is_refused(environ, says):
    with pytest.raises(chronik.ConfigError, match=says):
        chronik.LogConfig.from_env(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"S3_BUCKET": "a b"},
        {"S3_BUCKET": "user:password@bucket"},
        {"S3_BUCKET": "bucket?x=1"},
        {"S3_BUCKET": "../bucket"},
        {"S3_BUCKET": "b", "S3_PREFIX": "a/../../other"},
        {"S3_BUCKET": "b", "S3_PREFIX": "a//b"},
        {"S3_BUCKET": "b", "S3_PREFIX": "x" * 200},
        {"S3_BUCKET": "b", "S3_PREFIX": "a\nb"},
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["s3", "memory", "gcs"])
def test_a_bucket_or_prefix_that_cannot_be_meant_opens_nothing(tmp_path, backend, environ):
    if backend == "memory":
        environ = {name: text for name, text in environ.items() if name != "S3_BUCKET"}
        if not environ:
            return
    config = chronik.LogConfig.from_env({"OBJECT_STORE_BACKEND": backend, **environ})
    with pytest.raises(chronik.ConfigError) as caught:
        chronik.LogStore.open(tmp_path / "d", config=config)
    assert "password" not in re.sub("user, password", "", str(caught.value))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("path", ["/a/../b\0", "/x\0"], ids=ascii)
def test_a_storage_path_that_cannot_be_one_opens_nothing(tmp_path, path):
    environ = {"OBJECT_STORE_BACKEND": "local", "LOCAL_STORAGE_PATH": path}
    with pytest.raises(chronik.ConfigError):
        chronik.LogStore.open(tmp_path / "d", config=chronik.LogConfig.from_env(environ))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://x", "http://", "http://bad host", "://"])
def test_an_endpoint_that_is_none_is_refused_by_name(tmp_path, endpoint):
    environ = {"OBJECT_STORE_BACKEND": "s3", "S3_BUCKET": "b", "S3_ENDPOINT": endpoint,
               "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "hush"}  # fmt: skip
    with pytest.raises(chronik.ConfigError, match="endpoint") as caught:
        chronik.LogStore.open(
            tmp_path / "d", config=chronik.LogConfig.from_env(environ, pipeline_enabled=False)
        )
    assert "hush" not in str(caught.value)
    assert not (tmp_path / "d").exists()


def test_urls_are_spelled_from_their_variables():
    assert "s3://b/x/y" == object_store_url(
        {"OBJECT_STORE_BACKEND": "s3", "S3_BUCKET": "b", "S3_PREFIX": "/x/y/"}
    )


TYPES = {"int": ["1", 1.0, True, None], "float": ["1", True, None], "bool": [0, "false", None],
         "S3Options": ["s3", None, {}], "str | None": [7, b"file:///x"]}  # fmt: skip


@pytest.mark.parametrize("field", dataclasses.fields(chronik.LogConfig), ids=lambda each: each.name)
def test_a_field_of_a_wrong_type_or_value_is_refused_by_name(field):
    wrong = TYPES.get(str(field.type).removesuffix(" | None"), TYPES.get(str(field.type), ["x", 7]))
    for value in wrong:
        if value is None and "None" in str(field.type):
            continue
        with pytest.raises(chronik.ConfigError, match=field.name):
            CONFIG.replace(**{field.name: value})


@pytest.mark.parametrize("field", dataclasses.fields(chronik.S3Options), ids=lambda each: each.name)
def test_a_field_of_s3_of_a_wrong_type_is_refused_by_name(field):
    for value in TYPES[str(field.type)]:
        with pytest.raises(chronik.ConfigError, match=rf"s3\.{field.name} must be") as caught:
            chronik.S3Options(**{field.name: value})
        assert "file:///x" not in str(caught.value)  # it may be a secret


@pytest.mark.parametrize(("name", "low", "high"), _S3_BOUNDS)
def test_a_field_of_s3_out_of_bounds_is_refused_with_the_bounds(name, low, high):
    for value in (low, high):
        assert value == getattr(chronik.S3Options(**{name: value}), name)
    for value in (0, -1, high + 1):
        with pytest.raises(
            chronik.ConfigError, match=rf"s3\.{name} is .* between {low} and {high}"
        ):
            chronik.S3Options(**{name: value})


@pytest.mark.parametrize(("name", "low", "high"), _BOUNDS)
def test_the_bounds_themselves_are_usable(tmp_path, name, low, high):
    if name == "disk_reserve_bytes":
        high = low  # the other end keeps the whole disk
    types = {field.name: str(field.type) for field in dataclasses.fields(chronik.LogConfig)}
    for path, bound in ((tmp_path / "low", low), (tmp_path / "high", high)):
        whole = 1 << 62 if bound == math.inf else int(bound)
        value = whole if types[name].startswith("int") else bound
        changes = {name: value}
        if name == "record_bytes_max":
            changes["batch_bytes_max"] = 256 << 20
        if name == "batch_bytes_max":
            changes["record_bytes_max"] = 100
        with opened(path, **changes) as log:
            log.append([b"a"])
            log.cursor("c").commit(1)
            log.seal()
            assert () == log.run_pipeline_once().errors
            log.append(b"b")
            assert log.search("b").total >= 0
        # Retention of nothing keeps only what is not in the bucket yet.
        kept = stored(path)
        assert [b"a", b"b"] == kept or (name.startswith("retention") and not value)


def test_what_excludes_each_other_is_refused():
    with pytest.raises(chronik.ConfigError, match="batch_bytes_max"):
        CONFIG.replace(record_bytes_max=2 << 20, batch_bytes_max=1 << 20)
    with pytest.raises(TypeError):
        CONFIG.replace(no_such_setting=1)
    with pytest.raises(TypeError):
        chronik.LogConfig.from_env({}, no_such_setting=1)


def test_settings_show_what_is_not_the_default():
    """Or the signature of `PartitionLog.open` has more than a thousand characters of defaults."""
    assert "LogConfig()" == repr(chronik.LogConfig())
    config = chronik.LogConfig(
        segment_bytes=1 << 20, s3=chronik.S3Options(secret_key="hunter2", endpoint="http://x")
    )
    assert repr(config).startswith("LogConfig(segment_bytes=1048576, s3=S3Options(region=None, ")
    assert "hunter2" not in repr(config)
    assert "LogConfig(indexing_enabled=False)" == repr(chronik.LogConfig(indexing_enabled=False))
