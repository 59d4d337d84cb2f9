"""Recipes join data, engine and method: the one place where the three meet."""

from trimtab.recipes.neutral import typical_norms
from trimtab.recipes.vectors import check, choose_method, extract

__all__ = ["check", "choose_method", "extract", "typical_norms"]
