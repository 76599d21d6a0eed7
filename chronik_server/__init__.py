"""Chronik's server side: the whole command line, servers alone and in Raft clusters, their client.

Place: above `chronik_store`, which never imports it. Promise: importing this package loads
nothing; each module is loaded by the verb that needs it.
"""
