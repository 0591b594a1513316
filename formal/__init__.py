"""Exhaustive checks of the protocol at small scope.

Guarantees: what is explored is the real core, not a model of it. Does not: ship; this folder is for whoever works here.
"""
