"""The operations of one workspace: commands, reads, writes and reservations, for sync and async callers alike.

Guarantees: one implementation behind every sync and async method, and behind every adapter. Does not: know what a
framework calls an item, or a namespace.
"""
