"""Pure folds of the log: grant transitions, checks of deliveries and invariants, savings, lines of the state log.

The client's observers, `ccs-replay` and the audit consumers feed them. Guarantees: a projection's state is a function
of the admitted records it has folded; folding them again from zero gives the same state. Does not: read the log itself,
perform I/O, read a clock, draw random numbers or log.
May import: `protocol`.
"""
