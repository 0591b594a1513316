"""The memory of a client: contents, copies, read sets, and the record of deliveries.

Guarantees: bounded by bytes and by count; forgetting costs a fetch and never serves something stale. Does not: decide
who may read; the directory's grants do.
"""
