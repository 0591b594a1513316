"""The public test kit: a real Kafka broker, conformance suites for log stores, stories told as given, when, then.

Guarantees: fakes are real implementations (the memory log), never mocks; the package itself can be imported without a
test runner or an agent framework. Does not: belong in production code; only tests, benchmarks and the cli import it.

May import: everything below `cli`.
"""
