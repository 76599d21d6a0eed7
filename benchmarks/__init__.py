"""Benchmarks: what Chronik does on this machine, against the same bytes written by hand.

    python -m benchmarks              # all of them, some minutes
    python -m benchmarks --quick      # shorter runs, rougher figures
    python -m benchmarks append read  # some of them

Promise: every program reads back what it wrote and compares it, record by record; figures that
stand beside each other come from one run, taken in turns. See docs/benchmarks.md.
"""
