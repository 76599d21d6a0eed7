"""The object-store room: immutable objects under a prefix, created only if absent."""
