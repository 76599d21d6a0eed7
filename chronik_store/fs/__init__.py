"""The one door to the disk: contract in `base`, production in `posix`."""
