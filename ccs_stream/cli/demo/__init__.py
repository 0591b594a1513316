"""`ccs-stream demo`: four agents review real source files through the store, then processes race, stop and die on it.

Guarantees: what it shows is measured from the run and from the log it wrote; it checks itself, and says so by its exit
code; `graph` is a LangGraph graph to copy, in which a real chat model can take the place of the scripted one.
Does not: change the files it reads, need a key, a broker or a network.
"""
