"""The Avro contracts, as data: `log/` holds the private records of the log, `audit/` the public, flat ones.

The other folders hold the messages and files beside the log: commands, deliveries, content, snapshots, archives.

Guarantees: a released schema is never changed in place; every released one has a golden file that must stay readable.
Does not: contain code; `ccs_stream.log.schemas` reads the files.
May import: nothing.
"""
