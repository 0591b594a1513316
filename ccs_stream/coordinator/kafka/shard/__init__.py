"""One partition of a log: the states of its workspaces, folded as it is read, and the leadership of it."""
