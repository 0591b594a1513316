"""What an application holds: sessions, futures, freshness, copies; `observers` who watches, `degraded` the outbox.

Guarantees: each copy served is valid up to a known log position; nothing is reported done before it is durable; a
time-out is an unknown outcome, and a retry under the same number is applied at most once.
Does not: know any agent framework; that is the adapters' part.
May import: `coordinator`, `log` and what these may import.
"""
