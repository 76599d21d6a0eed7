"""What `bench` measures, whatever the settings are."""

from __future__ import annotations

import pytest

import chronik_store
from chronik_store.cli.bench import Bench


@pytest.mark.parametrize(
    "setting", [{"indexing_enabled": False}, {"retention_bytes": 0}, {"retention_seconds": 0.0}]
)
def test_a_bench_takes_over_no_setting_that_keeps_its_records_from_a_tier(tmp_path, setting):
    """It waited for an index for ever; or found its records dropped."""
    config = chronik_store.LogConfig(**setting)
    bench = Bench(config, str(tmp_path), None, records=300, size_bytes=40)
    bench._hot()
    with bench._open() as log:
        log.seal()
        for _ in range(3):
            log.run_pipeline_once()

        assert (0, 300) == (log.watermarks.start, log.watermarks.indexed)
