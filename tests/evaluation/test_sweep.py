"""The sweep finds the planted layer from a coarse start, counts what it tried, and reports on other items."""

import re

import numpy as np
import pytest

from evaluation.planted import JOY, TYPICAL, WIDTH, PlantedEngine
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.errors import InputError
from trimtab.evaluation.cells import Cell, conditions_of, grid
from trimtab.evaluation.curves import Curve, Point
from trimtab.evaluation.fluency import NeutralNll, PlainLoss
from trimtab.evaluation.items import Item
from trimtab.evaluation.samples import Memory
from trimtab.evaluation.scorers.logprob import Logprob
from trimtab.evaluation.strengths import strengths
from trimtab.evaluation.sweep import Bench, choose, neighbours, refined_doses, sweep
from trimtab.evaluation.sweep_page import report
from trimtab.evaluation.sweep_tables import About
from trimtab.recipes.several import finite_sites
from trimtab.sites import Site

DOSES = [-0.4, 0.0, 0.2, 0.4]


def items(start, count):
    labels = {"joy": ["joy"], "other": ["other"]}
    return [Item.of(f"i{k} w1", id=f"i{k:03}", continuations=labels) for k in range(start, start + count)]


def bench(engine, **files):
    ledger = Memory()
    files = files or {"planted": engine.vectors(joy=JOY)}
    return Bench(engine, files, ("joy",), Logprob(), NeutralNll(engine, ledger, texts=2), ledger=ledger)


def test_the_planted_layer_is_found_from_a_coarse_start():
    engine = PlantedEngine((0.2, 0.5, 0.7, 1.0, 0.6, 0.4), noise=0.05)
    b = bench(engine)
    everything = grid(b.files, range(6))
    first = [c for c in everything if c.layers[0] in (0, 5)]
    found = sweep(b, first, everything, items(0, 12), items(20, 12), DOSES)
    assert found.choice.cell.layers in ((3,), (4,))  # two rounds of neighbours, starting from layer 5
    whole = sweep(b, everything, everything, items(0, 12), items(20, 12), DOSES, refine=False)
    assert whole.choice.cell.layers == (3,) and whole.choice.runner_up.layers == (2,)
    expected = 0.4 * TYPICAL * engine.slope
    assert whole.choice.reach.mean == pytest.approx(expected, abs=0.05)
    assert whole.choice.gap.mean == pytest.approx(0.3 * expected, abs=0.05) and whole.choice.p < 0.01
    assert whole.tried == 6 * 3 and "next is planted 2" in whole.choice.reason
    assert found.tried > 2 * 3


def test_the_final_curve_is_on_items_that_chose_nothing():
    engine = PlantedEngine(noise=0.05)
    b = bench(engine)
    cells = grid(b.files, range(4))
    found = sweep(b, cells, cells, items(0, 8), items(40, 16), DOSES, words={"joy": "w3"})
    (final,) = found.final
    assert {r["item"] for r in b.ledger.done.values() if r.get("kind") == "prefix"} == {
        i.id for i in items(40, 16)
    }
    assert len(final.plain.items) == 16 and found.choice.doses["joy"] == 0.4
    assert final.best.items - final.plain.items == pytest.approx(0.4 * TYPICAL * engine.slope, abs=0.5)
    assert set(final.null) == {abs(p.dose) for p in final.points if p.dose} and len(final.null[0.4]) == 5
    assert final.band(0.4) - final.plain.items.mean() < 0.3  # chance does next to nothing
    assert found.prefixes["joy"].n == 16 and found.against_prefix["joy"].low > 0.4
    study = final.to_json()["study"]
    assert study["n_items"] == 16 and study["p_items"] < 0.001 and study["anti_steered"] == 0
    html = report(found, About("planted", "logprob", "neutral_nll")).page
    assert html.count('role="img"') == 3 and "planted 2" in html and "http" not in html


def test_the_rule_of_thumb_stands_beside_each_dose():
    """A push of 300 along a vector of length 3, where a state is typically TYPICAL long."""
    engine = PlantedEngine((0.2, 1.0))
    long = Direction.from_raw("joy", Site(1), 3.0 * JOY, typical_norm=TYPICAL)
    b = bench(engine, planted=ConceptVectors.from_directions([long]))
    cells = [Cell("planted", (1,))]
    found = sweep(b, cells, cells, items(0, 6), [], DOSES, refine=False)
    (s,) = strengths(found.curves, b.files)
    assert (s.dose, s.raw_norm, s.typical_norm) == (0.4, 3.0, TYPICAL)
    assert s.scale == pytest.approx(0.4 * TYPICAL / 3) and s.rule_scale == 100.0
    assert s.rule_scale / s.scale == pytest.approx(s.rule_dose / s.dose)  # the same displacements
    assert s.rule_dose * TYPICAL == pytest.approx(300.0)
    made = report(found, About("m", "s", "f", files=b.files))
    (row,) = next(p for p in made.tables if p.name == "strengths").rows
    assert (row["typical_norm"], row["raw_norm"], row["rule_300_scale"]) == (TYPICAL, 3.0, 100.0)
    assert row["scale"] == s.scale and row["rule_300_dose"] == s.rule_dose
    shown = made.page[made.page.index("Norms, and the rule of thumb") :]
    cells = re.findall("<td>(.*?)</td>", shown)
    assert f"{TYPICAL:.4g}" in cells and "300 / ‖v‖" in shown and "+0.4" in cells and "100" in cells


def test_a_dose_that_breaks_the_text_is_not_chosen():
    engine = PlantedEngine(breaks=0.3 * TYPICAL)
    b = bench(engine)
    cells = [Cell("planted", (2,))]
    found = sweep(b, cells, cells, items(0, 6), [], DOSES)
    assert 0.2 <= found.choice.doses["joy"] <= 0.3 and found.final == ()
    assert {p.dose: p.good for p in found.curves[0].points}[0.4] is False
    assert 0.3 in [p.dose for p in found.curves[0].points]  # refined between .2 and .4
    assert "optimistic" in report(found, About("m", "s", "f")).page


def curve(layer, scores, good=None, cut=None, concept="joy"):
    doses = [0.0, 0.2, 0.4]
    points = [
        Point(d, np.array(s, float), 1.0, (good or [True] * 3)[i], 10.0, (cut or [0] * 3)[i])
        for i, (d, s) in enumerate(zip(doses, scores, strict=True))
    ]
    return Curve(Cell("m", (layer,)), concept, tuple(points))


def test_choosing_needs_coherence_and_says_when_two_cells_are_alike():
    strong = curve(1, [[0, 0], [1, 1], [9, 9]], good=[True, True, False])
    alike = curve(2, [[0, 0], [0.9, 1.05], [0.8, 0.8]])
    found = choose([strong, alike])
    assert found.cell.layers == (1,) and found.doses == {"joy": 0.2}
    assert "cannot tell apart" in found.reason
    assert choose([strong]).runner_up is None
    gap = curve(1, [[0, 0], [0.1, 0.1], [9, 9]], good=[True, False, True])
    assert choose([gap]).doses == {"joy": 0.0}  # beyond an incoherent dose nothing is trusted
    nan = curve(3, [[np.nan, 0], [1, 1], [1, 1]])
    assert choose([nan, strong]).cell.layers == (1,)
    with pytest.raises(InputError, match="no cell"):
        choose([nan])


def test_refinement_looks_between_and_beside():
    c = curve(1, [[0.0], [1.0], [0.5]])
    assert refined_doses([c], c.cell) == [0.1, 0.3]
    every = [Cell("m", (n,)) for n in range(5)] + [Cell("m", (2,), "mlp_out")]
    assert [x.layers[0] for x in neighbours(Cell("m", (2,)), every)] == [1, 3]
    assert neighbours(Cell("m", (2,), "mlp_out"), every) == []


@pytest.mark.parametrize(("slopes", "closer"), [((1.0, 1.0), True), ((1.0, 0.3), False)])
def test_a_runner_up_that_is_as_good_is_looked_at_as_closely(slopes, closer):
    """Between two cells that the items cannot tell apart, a finer grid of doses for one of them would decide."""
    engine = PlantedEngine((*slopes, 0.1), noise=0.05)
    b = bench(engine)
    cells = grid(b.files, range(3))
    found = sweep(b, cells, cells, items(0, 10), [], DOSES)
    tried = {c.cell.layers[0]: {p.dose for p in c.points} for c in found.curves}
    best, other = found.choice.cell.layers[0], found.choice.runner_up.layers[0]
    assert {best, other} == {0, 1} and found.choice.told is not closer
    assert tried[best] > set(DOSES) and tried[2] == set(DOSES)
    assert (tried[other] > set(DOSES)) is closer


def test_cut_replies_and_missing_numbers_are_flagged():
    flagged = curve(1, [[0.0], [1.0], [np.nan]], cut=[0.02, 0.2, 0.0]).warnings
    assert "--continue-to" in flagged[0] and "not finite at doses +0.4" in flagged[1]
    assert curve(1, [[0.0], [1.0], [1.0]], cut=[0.02, 0.05, 0.0]).warnings == ()


def test_axes_multiply_and_windows_are_neighbours():
    engine = PlantedEngine()
    files = {"a": engine.vectors(joy=JOY), "b": engine.vectors(joy=JOY)}
    cells = grid(files, range(4), windows=(1, 2), positions=("all", "generated"))
    assert len(cells) == 2 * (4 + 3) * 2 and len({c.name for c in cells}) == len(cells)
    assert Cell("a", (1, 2), positions="generated").name == "a 1-2 generated"
    with pytest.raises(InputError, match="no cell"):
        grid(files, [9])


def test_a_union_shares_the_dose_between_its_streams():
    """Each of two streams gets half of the dose in its own typical norm; a layer that lacks one has no union."""
    rows = {Site(0, "attn_out"): 3.0, Site(0, "mlp_out"): 5.0, Site(1, "mlp_out"): 7.0}
    engine = load_engine("tiny", "reference")
    unit = engine.planted["joy"]
    file = ConceptVectors.from_directions(
        [Direction.from_raw("joy", s, unit, typical_norm=n) for s, n in rows.items()]
    )
    cells = grid({"m": file}, range(2), windows=(1, 2), union=True)
    together = [c for c in cells if "+" in c.stream]
    assert [c.name for c in together] == ["m 0 attn_out+mlp_out"]
    assert {c.stream for c in grid({"m": file}, range(2))} == {"attn_out", "mlp_out"}
    (joy, random) = conditions_of(together[0], file, ["joy"], [0.8], 1, [0.8])
    for condition in (joy, random):
        plan = engine.resolve(condition.plan, engine.encode("we", bare=True))
        pushes = {p.site: abs(p.coefficients.shift * p.coefficients.strength) for p in plan.effective}
        assert pushes == {
            Site(0, "attn_out"): pytest.approx(0.4 * 3),
            Site(0, "mlp_out"): pytest.approx(0.4 * 5),
        }
    assert together[0].sites == tuple(pushes)


def test_a_layer_that_is_not_finite_is_left_out_with_the_reason():
    engine = PlantedEngine(broken=1)
    norms, out = finite_sites(engine, [Site(n) for n in range(4)])
    assert set(norms) == {Site(0), Site(2), Site(3)} and norms[Site(0)] == pytest.approx(TYPICAL)
    assert list(out) == [Site(1)] and "NaN or infinite" in out[Site(1)]


def test_a_bench_refuses_what_it_cannot_compare():
    engine = PlantedEngine()
    with pytest.raises(InputError, match="5 random directions"):
        Bench(engine, {}, (), Logprob(), PlainLoss(), randoms=4)
    bare = engine.vectors(joy=JOY)
    object.__setattr__(bare, "typical_norms", {})
    with pytest.raises(InputError, match="typical norms"):
        Bench(engine, {"m": bare}, ("joy",), Logprob(), PlainLoss())
    with pytest.raises(InputError, match="above 0"):
        b = bench(engine)
        sweep(b, grid(b.files, [0]), [], items(0, 2), [], [-0.2, 0.0])
    assert WIDTH > 8
