"""Cache coherence for LLM agents that share artifacts, over one ordered, durable log of facts.

Guarantees: importing the package is cheap and needs no agent framework and no broker.
Does not: re-export the rooms; import what you need from `ccs_stream.client`, `ccs_stream.adapters` and so on.
The rooms, what each may import, and the check that enforces it are described in CONTRIBUTING.md.
"""

__version__ = "0.1.0"
