"""The LogStore port and its stores: memory, SQLite, Kafka, archive file; the record codec; log URLs.

The coordinators append through it; the client, consumers and `ccs-replay` read through it.

Guarantees: one order per shard; a record that was read is durable as far as its store promises; an append whose
outcome is not known is reported as unknown, never as failed.
Does not: decide anything or interpret events; `protocol.admit` says which records count.
May import: `protocol` and `schemas`.
"""
