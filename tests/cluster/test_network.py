"""The network of the cluster tests, without a cluster."""

import socket

from tests.cluster.network import Network
from tests.cluster.processes import eventually
from tests.ports import free_port


def test_a_connection_whose_ends_have_gone_already_is_no_obstacle_to_a_reset():
    """It is kept while its way is held, since nobody may be told of its end before."""
    upstream_port, port = free_port(), free_port()
    with socket.create_server(("127.0.0.1", upstream_port)) as server, Network() as network:
        network.front("1", port, upstream_port)
        caller = socket.create_connection(("127.0.0.1", port))
        caller.sendall(b"no greeting of ours" * 20)
        server.settimeout(10)
        callee, _ = server.accept()
        assert callee.recv(5) == b"no gr"
        network.isolate("1", ["client"], "hold")
        callee.close()
        caller.close()
        (crossing,) = network._connections
        ends = crossing._writer, crossing._upstream
        eventually(
            lambda: any(end.get_extra_info("socket").fileno() < 0 for end in ends),
            10,
            "one is gone",
        )

        network.isolate("1", ["client"], "reset")
        network.heal()
        eventually(lambda: not network._connections, 10, "it has ended")
