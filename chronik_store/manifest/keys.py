"""Which objects a manifest names, and which of them are alive.

Place: part of the `manifest` room; whoever deletes or looks for strays asks here. Promise: pure.
Invariant: alive keys are named keys; a key that a manifest does not name is not this log's.
"""

from __future__ import annotations

from chronik_store.format.manifest_file import Manifest


def live_keys(manifest: Manifest) -> set[str]:
    """Segments and their bundles: what readers are sent to."""
    keys = {segment.key for segment in manifest.segments}
    return keys | {each.bundle.key for each in manifest.segments if each.bundle is not None}


def announced_keys(manifest: Manifest) -> set[str]:
    """Objects that an INTENT named and no later entry accounts for: they may exist or come."""
    return {key for intent in manifest.intents for key in intent.keys}


def named_keys(manifest: Manifest) -> set[str]:
    """Every object that may exist by this manifest: alive, announced, garbage."""
    garbage = {item.key for item in manifest.garbage}
    return live_keys(manifest) | announced_keys(manifest) | garbage
