"""Following a log: one thread reads all followed partitions; beside it go restoring, snapshots and checks of topics."""
