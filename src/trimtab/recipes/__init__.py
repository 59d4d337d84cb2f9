"""Recipes join data, engine and method: the one place where the three meet."""

from trimtab.recipes.neutral import typical_norms
from trimtab.recipes.spans import top_spans
from trimtab.recipes.transcripts import read_texts
from trimtab.recipes.vectors import Extraction, check, choose_method, extract, extract_full

__all__ = [
    "Extraction",
    "check",
    "choose_method",
    "extract",
    "extract_full",
    "read_texts",
    "top_spans",
    "typical_norms",
]
