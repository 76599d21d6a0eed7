"""The RPC protocol: bytes <-> frames <-> messages, without a socket in sight.

Place: between `errors` below and `client`, `server` above; the page docs/rpc.md says the same in
bytes. Promise: nothing here reads a clock, a socket or a file; whatever bytes arrive, the outcome
is events or ProtocolError, with memory bounded by the limits given. Invariant: client and server
share these modules, and none of them loads the storage engine.

    frames        20 fixed bytes, a CBOR header, a raw payload
    message       how a frozen dataclass stands in a CBOR map
    data, topics, cluster, greeting     the messages, and which verb has which
    connection    receive_data(bytes) -> events; send(event) -> bytes; a table of states
"""
