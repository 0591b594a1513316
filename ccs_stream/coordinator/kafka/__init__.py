"""Coordinators of a log on Kafka: who follows, who leads, and how a client asks whoever does.

`service` is what operators run, `remote` what a client has; both stand on a `node`, which follows partitions (`shard`)
and offers to lead them (`member`, of the consumer group).

Guarantees: the group suggests who should lead, the log says who does. Does not: decide; `coordinator.batch` does.
May import: what `coordinator` may.
"""
