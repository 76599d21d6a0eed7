"""Chronik's server side: the command line today, the replicated server over `chronik_store` later.

Place: above `chronik_store`, which never imports it. Promise: importing this package loads
nothing; each module is loaded by the verb that needs it.
"""
