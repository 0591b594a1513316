"""Tick-driven scenarios and fault simulation over the real core.

Guarantees: a run is a function of its scenario and its seed, and runs the same state machines as production.
Does not: use wall-clock time, threads of its own scheduling, or a network.
May import: `protocol`, `projections`, `log`.
"""
