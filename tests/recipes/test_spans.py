"""Top spans against a search through all spans."""

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.recipes.spans import top_spans
from trimtab.recipes.transcripts import TokenReadings
from trimtab.sites import Site


def reading(values, counted=None, name="t"):
    values = np.asarray(values, dtype=np.float32)
    n = len(values)
    counted = np.ones(n, bool) if counted is None else np.asarray(counted, bool)
    pieces = tuple(f" w{i}" for i in range(n))
    return TokenReadings(
        name,
        tuple(range(n)),
        pieces,
        (None,) * n,
        values[:, None, None],
        counted,
        (Site(0),),
        ("joy",),
        "emit",
        True,
    )


def every_span(readings, least):
    return [
        (float(np.mean(r.values[a:b, 0, 0], dtype=np.float64)), r.name, a, b)
        for r in readings
        for a in range(len(r))
        for b in range(a + least, len(r) + 1)
        if r.counted[a:b].all()
    ]


@pytest.mark.parametrize("least", [1, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_they_are_the_best_of_all_spans(seed, least):
    rng = np.random.default_rng(seed)
    texts = [reading(rng.standard_normal(n), rng.random(n) > 0.1, f"t{n}") for n in (25, 31)]
    left, found = every_span(texts, least), top_spans(texts, "joy", count=4, least=least)
    for span in found:
        best = max(left)
        assert span.mean == pytest.approx(best[0], abs=1e-9)
        assert span.end - span.start >= least
        left = [x for x in left if x[1] != span.name or x[3] <= span.start or x[2] >= span.end]
    assert len(found) == 4 or not left


def test_a_planted_span_is_found_with_its_words():
    values = np.zeros(30)
    values[11:16] = 5.0
    (span,) = top_spans([reading(values)], "joy", count=1, least=5)
    assert (span.start, span.end, span.mean, span.text) == (11, 16, 5.0, " w11 w12 w13 w14 w15")


def test_what_does_not_count_interrupts():
    values, counted = np.full(12, 1.0), np.ones(12, bool)
    values[6], counted[6] = 99.0, False
    found = top_spans([reading(values, counted)], "joy", count=9, least=4)
    assert {(s.start, s.end) for s in found} == {(0, 6), (7, 12)}  # of equal means the longer
    assert top_spans([reading(values, counted)], "joy", count=9, least=8) == []


def test_none_and_nonsense():
    assert top_spans([reading(np.ones(9))], "joy", count=0) == []
    with pytest.raises(InputError, match="1 token or more"):
        top_spans([reading(np.ones(9))], "joy", least=0)
