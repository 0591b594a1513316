"""The observers of a workspace: delivery log, content audit, state log, metrics; and the pusher.

Guarantees: each works in threads of its own: none of it can delay, break or block a read or write.
"""
