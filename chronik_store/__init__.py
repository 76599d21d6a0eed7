"""Chronik: a durable, tiered, searchable partition log."""
