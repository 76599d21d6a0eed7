"""The fault proxy against clients that do not wait for what it has in mind."""

from __future__ import annotations

import gc
import logging
import socket
import struct
import time

import pytest

from chronik_store.testing.fault_proxy import FaultProxy, ProxyFault


def test_a_client_that_left_while_the_proxy_hung_is_no_error_of_the_proxy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, logger="asyncio")
    with FaultProxy("127.0.0.1", 9) as proxy:
        proxy.add(ProxyFault("hang", seconds=0.3))
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            end = time.monotonic() + 10
            while not proxy.requests and time.monotonic() < end:
                time.sleep(0.01)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert proxy.requests == ["GET / HTTP/1.1"]
        time.sleep(0.6)
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []
