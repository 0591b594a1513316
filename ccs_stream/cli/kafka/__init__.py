"""Commands for a log on Kafka: coordinator, topics, doctor.

Guarantees: each command uses only the log that it is given; no output contains a secret. Does not: hold logic.
"""
