"""Benchmarks, run with `make bench`; measured against other stores where these do the same work.

Guarantees: prints what was measured and on which machine, next to each number.
Does not: run in CI, or decide whether a change is good.
"""
