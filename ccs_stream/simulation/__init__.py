"""Planned, not built yet: scenarios told in ticks, and simulated faults, over the same core that production runs.

Until it is built, `formal/` explores the rules at small scope and `tests/faults` breaks real processes and brokers.
May import: `protocol`, `projections`, `log`.
"""
