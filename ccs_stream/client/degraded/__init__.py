"""Going on without the log: when that is, what is read and written meanwhile, and how what waited comes to the log.

Guarantees: nothing is invented, nothing is lost that was said to be kept. Does not: begin by itself; a workspace asks
for it with `on_error="degrade"`.
"""
