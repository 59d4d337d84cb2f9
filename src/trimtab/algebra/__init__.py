"""Vectors as numbers: sums, interpolation, Gram–Schmidt, merging, and sums written as text."""

from trimtab.algebra.arithmetic import AlgebraWarning, interpolate, orthogonalised, weighted_sum
from trimtab.algebra.expression import evaluate
from trimtab.algebra.merging import merge

__all__ = ["AlgebraWarning", "evaluate", "interpolate", "merge", "orthogonalised", "weighted_sum"]
