"""Coordinators: local (in the caller's process), service (the shards of a Kafka topic), and snapshots.

Guarantees: a command is answered only from decisions that were read back, admitted, from the log.
Does not: hold any truth of its own; killed at any moment, it is rebuilt from the log.
May import: `log`, `projections` and what these may import.
"""
