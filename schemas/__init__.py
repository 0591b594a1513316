"""The Avro contracts, as data: `log/` holds the private records of the log, `audit/` the public, flat ones.

Guarantees: a released schema is never changed in place; every released one has a golden file that must stay readable.
Does not: contain code; reading the files is the part of whoever encodes.
May import: nothing.
"""
