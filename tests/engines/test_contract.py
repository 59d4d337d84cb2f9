"""Every engine against every clause of the contract."""

import pytest

from engines.contract import CLAUSES
from engines.subjects import SUBJECTS, TOLERANCES, Subject

BUILT: dict[str, Subject] = {}
FAILED: dict[str, Exception] = {}


#: Of the reference engine, only the one over HTTP is slow.
SLOW = pytest.mark.slow
MARKS = {"reference": (), "reference-chunked": (), "reference-remote": SLOW, "reference-servers": SLOW}
ROWS = [pytest.param(n, marks=MARKS.get(n, pytest.mark.engine)) for n in SUBJECTS]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    yield tmp_path_factory.mktemp("checkpoints")
    for subject in BUILT.values():
        subject.engine.close()


@pytest.mark.parametrize("clause", list(CLAUSES))
@pytest.mark.parametrize("subject", ROWS)
def test_contract(subject, clause, folder):
    if not subject.startswith("reference"):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    if subject in FAILED:
        raise FAILED[subject]
    if subject not in BUILT:
        try:
            BUILT[subject] = SUBJECTS[subject](folder)
        except Exception as error:  # building it again for every clause would take as long and fail as surely
            FAILED[subject] = error
            raise
    CLAUSES[clause](BUILT[subject])  # asserts inside


def test_every_subject_has_its_tolerances():
    assert set(SUBJECTS) == set(TOLERANCES)
