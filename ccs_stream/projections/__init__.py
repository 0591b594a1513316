"""Pure folds of the log: agent caches, transitions, deliveries, savings, invariants.

Guarantees: a projection's state is a function of the admitted records it has folded; folding them again from zero
gives the same state.
Does not: read the log itself, perform I/O, read a clock, draw random numbers or log; whoever holds a log feeds it.
May import: `protocol`.
"""
