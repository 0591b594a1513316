"""Adapters: one module or package per agent framework, and the telemetry exporters.

Guarantees: each adapter imports only its own framework, so that installing one extra is enough to use one adapter.
Does not: import any framework in this file, or decide anything about coherence; the client and the log do.
May import: `client` and what it may import, and the framework it adapts.
"""
