"""Processes that fold the log into something else: audit projector, snapshots, metrics, warehouse sinks.

Guarantees: a consumer that is stopped anywhere resumes without a gap, and without a duplicate where its target allows.
Does not: write to the log it reads, or take part in deciding.
May import: `projections`, `log` and what these may import.
"""
