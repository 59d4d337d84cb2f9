"""Recipes join data, engine and method: the one place where the three meet."""

from trimtab.recipes.neutral import typical_norms
from trimtab.recipes.vectors import check, extract

__all__ = ["check", "extract", "typical_norms"]
