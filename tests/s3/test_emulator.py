"""S3 on the emulator: cheap enough for every run. What it proves of races it proves of itself."""

import pytest

from tests.s3.s3_facts import S3Facts


@pytest.fixture(scope="module")
def server(emulator):
    return emulator


class TestEmulator(S3Facts):
    large_mib = 9  # 24 take seconds; on a busy machine longer than a request may
