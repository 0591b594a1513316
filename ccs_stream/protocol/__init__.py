"""The pure core: ids, states, events, commands, the directory (decide, evolve), admit, the leadership loop.

Every other room uses it. Guarantees: the same inputs give the same outputs, for ever. Time, ids and bytes are handed
in; events, verdicts and requests for I/O are handed out, so that replay and fault simulation run this very code.
Does not: perform I/O, read a clock, draw random numbers, log, or know Avro, Kafka or SQLite.
May import: the standard library without its effects, and `schemas` (data).
"""
