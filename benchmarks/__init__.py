"""Benchmarks, run with `make bench`: this store next to others that do the same work, in the same run.

Guarantees: every number stands next to that of a peer or a floor, measured in turns with it on the same values, so that
a busy machine slows both; the targets are printed beside them. Does not: run in CI beyond a smoke test, or decide
whether a change is good.
"""
