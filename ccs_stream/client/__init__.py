"""The client: what applications and adapters hold of a workspace.

`connect`, `Workspace`, `Agent` and the results are the face; `adapter_port` is the interface for adapters. Behind them,
`operations` reads and writes, `cache` keeps contents and read sets, `observers` record and measure, and `degraded` goes
on without the log.

Guarantees: each copy served is valid up to a known log position. Nothing is reported done before it is durable. A
time-out is an unknown outcome, and a retry under the same number is applied at most once.
Does not: know any agent framework; adapters do.
May import: `coordinator`, `log` and what these may import.
"""
