"""`ccs-stream workloads`: three LangGraph graphs whose agents share artifacts, and the tokens that moved.

Guarantees: the graphs are run, with a scripted model; every number is counted in the run. Does not: need an API key, a
broker or a network.
"""
