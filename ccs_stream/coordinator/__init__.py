"""Coordinators: they have the commands of a workspace decided, and keep its state folded.

A client asks `factory.open_coordinator` for one and uses it through `port.Coordinator`. `local` decides in the caller's
process (memory, SQLite); `kafka/` finds the leader of a log on Kafka, which may be this process. `batch` decides for
both, `answer` and `pending_command` are a caller's view of a command, `sweep` and `snapshot_pace` say when maintenance
is due, `health` is the state of a coordinator as data.

Guarantees: a command is answered only from decisions that were read back, admitted, from the log.
Does not: hold any truth of its own; killed at any moment, it is rebuilt from the log.
May import: `log`, `projections` and what these may import.
"""
