"""The engine contract: every clause, by name. A new engine adds itself to `subjects.SUBJECTS`, and nothing here."""

from engines import clauses_edits, clauses_generation, clauses_reading, clauses_surface
from engines.registry import CLAUSES, Clause

__all__ = ["CLAUSES", "Clause", "clauses_edits", "clauses_generation", "clauses_reading", "clauses_surface"]
