"""Coordinators of a log on Kafka, and the way of a client's command to the leader.

`service.CoordinatorService` is what operators run; `remote.RemoteCoordinator` is what a client holds. Both stand on the
same four parts:

- `shard/`: one partition as this process follows it and, where the log says so, leads it;
- `follower/`: the one thread that reads all followed partitions, and what keeps them followed;
- `group/`: this process in the consumer group of the coordinators, which suggests who should lead;
- `commands/`: commands on their way to the leader, and those whose decisions are still to be read.

Guarantees: the group suggests who should lead, the log says who does. Does not: decide; `coordinator.batch` does.
May import: what `coordinator` may.
"""
