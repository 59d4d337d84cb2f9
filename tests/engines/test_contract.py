"""Every engine against every clause of the contract."""

import pytest

from engines.contract import CLAUSES
from engines.subjects import SUBJECTS, TOLERANCES

BUILT: dict[str, object] = {}


ROWS = [pytest.param(n, marks=() if n.startswith("reference") else pytest.mark.engine) for n in SUBJECTS]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.mark.parametrize("clause", list(CLAUSES))
@pytest.mark.parametrize("subject", ROWS)
def test_contract(subject, clause, folder):
    if not subject.startswith("reference"):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    if subject not in BUILT:
        BUILT[subject] = SUBJECTS[subject](folder)
    CLAUSES[clause](BUILT[subject])  # asserts inside


def test_every_subject_has_its_tolerances():
    assert set(SUBJECTS) == set(TOLERANCES)
