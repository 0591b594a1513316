"""Exhaustive checks of the protocol at small scope, for contributors.

Guarantees: the real core is explored, not a model of it. Does not: ship with the package.
"""
