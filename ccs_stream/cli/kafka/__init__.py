"""Commands about a log on Kafka: coordinator, topics, doctor.

Guarantees: each opens the log it is given and nothing else; secrets are in no output. Does not: hold logic.
"""
