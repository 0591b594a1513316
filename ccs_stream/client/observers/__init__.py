"""Whoever watches what is read and written: deliveries, audits, the state log, metrics; and what pushes.

Guarantees: all of it happens aside, in threads of its own: none of it can delay, break or block a read or write.
"""
