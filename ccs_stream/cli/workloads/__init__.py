"""`ccs-stream workloads`: three LangGraph graphs whose agents share artifacts, and the tokens that moved.

Guarantees: the graphs are run, with a scripted model; what is printed was counted. Does not: need a key, a broker or a
network.
"""
