"""The public test kit: broker fixture, conformance suites for the ports, given / when / then.

Guarantees: fakes are real implementations (the memory log), never mocks; this package itself imports without any test
runner or agent framework installed.
Does not: belong in production code; nothing but tests, benchmarks and the cli imports it.
May import: everything below `cli`.
"""
