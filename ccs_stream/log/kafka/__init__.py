"""The log on Kafka: settings, topics, clients, and the store.

Guarantees: a workspace is always in one partition; all readers of a partition read one order; librdkafka's settings
reach it untouched, and its error codes are translated in one file. Does not: lead, or decide; `coordinator` does.
"""
