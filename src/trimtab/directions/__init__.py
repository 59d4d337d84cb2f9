"""Concept vectors: unit directions at sites with what is needed to steer and to read with them."""

from trimtab.directions.direction import Direction, content_hash, frozen
from trimtab.directions.table import COLUMNS, Origin, Table
from trimtab.directions.vectors import DEFAULT_DEPTH, ConceptVectors

__all__ = [
    "COLUMNS",
    "ConceptVectors",
    "DEFAULT_DEPTH",
    "Direction",
    "Origin",
    "Table",
    "content_hash",
    "frozen",
]
