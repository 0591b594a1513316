"""The `ccs-stream` command: demo, coordinator, topics, doctor, simulate, benchmark.

Guarantees: a command that needs an extra which is not installed says which one; exit codes tell outcomes apart.
Does not: hold logic that another program would want; that lives in the room it belongs to.
May import: everything; an agent framework only in `cli.demo`.
"""
