"""Readouts on planted states: a shared direction holds off its own data, a corpus's own marker does not."""

import csv
import io

import numpy as np
import pytest

from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.engines.requests import Sampling
from trimtab.errors import InputError
from trimtab.evaluation.items import Item
from trimtab.evaluation.readout import cross_page
from trimtab.evaluation.readout.controls import control_scores, sentiment
from trimtab.evaluation.readout.cross import cross
from trimtab.evaluation.readout.matrix import Corpus, grouped_auc, matrix
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.samples import Memory
from trimtab.extraction import make
from trimtab.sites import Site

SITES = (Site(0), Site(1))
WIDTH, N = 12, 40
WORDS = ["river", "stone", "table", "window", "garden", "letter", "paper", "chair"]


def corpus(name, marker=None, seed=0, words=None):
    """States whose sides differ along axis 0 at layer 1, and along a marker of this corpus alone at layer 0."""
    rng = np.random.default_rng(seed)
    sign = np.repeat([1.0, -1.0], N)[:, None]
    base = {s: rng.normal(size=(2 * N, WIDTH)) for s in SITES}
    base[Site(1)][:, :1] += 2 * sign
    if marker is not None:
        base[Site(0)][:, marker : marker + 1] += 4 * sign
    said = [" ".join(rng.choice(words or WORDS, 6)) for _ in range(2 * N)]
    return Corpus(name, base, N, tuple(said), tuple(f"{name}{i % N}" for i in range(2 * N)), True)


METHOD = make("mean_diff")


def test_a_shared_direction_is_a_readout_and_a_marker_is_none():
    found = matrix([corpus("a", marker=3, seed=1), corpus("b", marker=7, seed=2)], METHOD)
    cells = {(e.train, e.unseen, e.site.layer): e for e in found.entries}
    assert len(cells) == 8
    assert cells["a", "b", 1].auc > 0.95 and cells["a", "b", 1].holds
    own, other = cells["a", "a", 0], cells["a", "b", 0]
    assert own.auc > 0.95 and own.own  # its own halves show the marker ...
    assert 0.2 < other.auc < 0.8 and not other.holds  # ... which the other corpus does not have
    # The layer is chosen on the training corpus alone, which prefers its marker: the verdict says what comes of it.
    a = found.verdicts[0]
    assert a.site == Site(0) and not a.readout and a.fails_on == ("b",)
    clean = matrix([corpus("a", seed=1), corpus("b", seed=2)], METHOD)
    assert all(v.readout and v.site == Site(1) for v in clean.verdicts)


def test_a_direction_that_length_explains_is_no_readout():
    """Both corpora differ in length too: the control reaches 1, and nothing can be above it."""

    def longer(c):
        texts = tuple(t + " and so on" if i < N else t for i, t in enumerate(c.texts))
        return Corpus(c.name, c.rows, c.positives, texts, c.groups, c.paired)

    found = matrix([longer(corpus("a", seed=1)), longer(corpus("b", seed=2))], METHOD)
    assert all(e.controls["length"] == 1.0 and not e.holds for e in found.entries)
    assert not any(v.readout for v in found.verdicts)


def test_controls():
    train = (["a happy friend", "a good day"], ["a sad enemy", "a bad dark day"])
    found = control_scores(train, ["happy good", "sad bad bad words here"])
    assert found["sentiment"][0] > found["sentiment"][1] and sentiment("happy sad") == 0
    assert found["length"][0] > found["length"][1]  # the positives were shorter: shorter counts as positive
    assert found["topic"][0] > found["topic"][1]


def test_grouped_intervals_are_wider_where_texts_are_copies():
    rng = np.random.default_rng(0)
    single = np.concatenate([rng.normal(0.5, 1, 20), rng.normal(-0.5, 1, 20)])
    copies = np.concatenate([np.repeat(single[:20], 5), np.repeat(single[20:], 5)])
    alone = grouped_auc(copies, 100, [str(i) for i in range(200)])
    grouped = grouped_auc(
        copies, 100, [f"p{i // 5}" for i in range(100)] + [f"n{i // 5}" for i in range(100)]
    )
    assert alone[0] == grouped[0]
    assert (grouped[2] - grouped[1]) > 1.8 * (alone[2] - alone[1])  # about √5


def test_one_corpus_and_needy_methods_are_refused():
    with pytest.raises(InputError, match="at least two"):
        matrix([corpus("a")], METHOD)
    from trimtab.errors import Unsupported

    with pytest.raises(Unsupported, match="gradients"):
        matrix([corpus("a"), corpus("b")], make("grad_mean"))


@pytest.fixture(scope="module")
def steered():
    """Two planted concepts of the reference model, steered at layer 1 and read at layer 3."""
    engine = load_engine("tiny", "reference")
    directions = [
        Direction(name, Site(layer), engine.planted[name], norm=3.0, typical_norm=6.0)
        for name in ("joy", "formality")
        for layer in (1, 3)
    ]
    vectors = ConceptVectors.from_directions(directions)
    items = [Item.of(text) for text in ("we feel really", "they look so", "you seem", "I stay very")]

    def call(**changes):
        where = {
            "dose": 0.6,
            "steer": Site(1),
            "read": Site(3),
            "sampling": Sampling(max_tokens=8),
            "random": 5,
        }
        return cross(engine, vectors, items, **{**where, **changes})

    return call


def test_steering_a_planted_concept_moves_its_own_reading_most(steered):
    found = steered()
    assert found.strongest == (True, True) and not found.same_site and found.n == 4
    high = found.null[0][1]
    assert found.change[0][0].mean > high  # further than any random direction of the same dose
    assert found.outside(0, 0) and steered(random=0).outside(0, 0) is None
    with pytest.raises(InputError, match="does not reach"):
        steered(steer=Site(3), read=Site(1))


def test_finished_replies_are_not_made_again(steered, monkeypatch):
    memory = Memory()
    first = steered(ledger=memory)
    # the plain model, two concepts steered and told, five directions in both signs
    assert len(memory.done) == 4 * (1 + 2 * 2 + 2 * 5)
    kinds = {r["kind"]: r for r in memory.done.values()}
    assert set(kinds) == {"plain", "steered", "random", "prefix"}
    assert {"item", "fingerprint", "dose", "scale", "seed", "model", "revision", "text", "readings"} <= set(
        kinds["steered"]
    )
    monkeypatch.setattr(
        "trimtab.engines.reference.engine.ReferenceEngine.generate", lambda *_: pytest.fail("made again")
    )
    again = steered(ledger=memory)
    assert (again.change, again.replies, again.examples) == (first.change, first.replies, first.examples)


def test_the_page_has_the_matrix_s_numbers(steered):
    found = steered()
    ship = Ship(-0.4, 0.5, "calibrated")
    about = cross_page.About("tiny", "r1", "trimtab eval steer-read tiny v", "mean_diff", "layer 1", "layer 3",
                             ships={"joy": ship})  # fmt: skip
    made = cross_page.report(found, about)
    rows = list(csv.DictReader(io.StringIO(made.tables[0].csv())))
    assert [(r["steered"], r["read"]) for r in rows] == [(i, j) for i in found.steered for j in found.read]
    for row, e in zip(rows, (e for line in found.change for e in line)):
        assert [float(row[f"change{end}"]) for end in ("", "_low", "_high")] == [e.mean, e.low, e.high]
    assert rows[0]["outside"] == "yes" and float(rows[0]["null_high"]) == found.null[0][1]
    wide = list(csv.DictReader(io.StringIO(made.tables[1].csv())))
    assert float(wide[1]["read_joy"]) == found.change[1][0].mean
    (prompts,) = (list(csv.DictReader(io.StringIO(t.csv()))) for t in made.tables if t.name == "prompts")
    assert float(prompts[0]["read_joy"]) == found.told[0][0].mean and prompts[1]["told"] == "formality"
    assert "joy: dose +0.6 lies beyond its safe range, −0.4 to +0.5" in made.page
    assert made.page.count('class="chosen"') == 2  # own readings are framed
    assert all(t.prompt in made.page for t in found.examples["joy"])
    assert "**Own reading:**" in made.card and "$ trimtab eval steer-read tiny v" in made.card


def test_what_a_reader_of_the_matrix_is_told(steered):
    assert any("diagonal is the displacement itself" in n for n in steered(read=Site(1)).notes)
    assert any("no random directions" in n for n in steered(random=0).notes)
    strong = steered(dose=40.0)
    assert not all(r.good for r in strong.replies) and any("no longer coherent" in n for n in strong.notes)
