"""A random driver over the whole public API: odd values of every type, in every argument, in sequences of calls.

`python -m tests.fuzz --minutes 60` runs it for a night; the suite runs a small budget.
"""
