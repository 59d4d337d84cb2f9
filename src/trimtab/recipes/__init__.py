"""Recipes join data, engine and method: the one place where the three meet."""

from trimtab.recipes.neutral import typical_norms
from trimtab.recipes.vectors import Extraction, check, extract, extract_full

__all__ = ["Extraction", "check", "extract", "extract_full", "typical_norms"]
