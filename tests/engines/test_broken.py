"""The contract can fail: each broken engine breaks every clause that names its mistake.

That the healthy engine passes them all is `test_contract.py`.
"""

import pytest

from engines import broken_edits, broken_engines
from engines.broken import BROKEN
from engines.contract import CLAUSES

ROOMS = (broken_edits, broken_engines)
CASES = [(name, clause) for name, engine in BROKEN.items() for clause in engine.clauses]


@pytest.mark.parametrize(("name", "clause"), CASES, ids=lambda value: str(value))
def test_the_contract_catches(name, clause):
    with pytest.raises((AssertionError, RuntimeError, KeyError, pytest.fail.Exception)):
        CLAUSES[clause](BROKEN[name].subject())


def test_every_broken_engine_is_registered():
    written = {
        n for room in ROOMS for n, c in vars(room).items() if getattr(c, "__module__", "") == room.__name__
    }
    assert written == set(BROKEN)


def test_every_clause_is_broken_by_somebody():
    assert {clause for _, clause in CASES} == set(CLAUSES)
