"""`ccs-stream demo`: four agents review source files through the store, then processes race, stop and die on its log.

Guarantees: everything shown was measured in the run or read from its log; the demo checks itself, and its exit code
says the outcome; `graph` is a LangGraph graph to copy, in which a real chat model can replace the scripted one. Does
not: change the files that it reads, or need an API key, a broker or a network.
"""
