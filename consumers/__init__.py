"""Planned, not built yet: processes that fold the log into something else.

They will be the projector of the audit topics, metrics over the log, and sinks for warehouses. Until they are built,
`ccs-replay SOURCE timeline --json` and `ccs-replay SOURCE deliveries --json` print what a loader needs.
May import: `projections`, `log` and what these may import.
"""
