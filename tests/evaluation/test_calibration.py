"""Calibrations find the strength that a root-finder finds, and never call a damaged push safe."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from evaluation.planted import JOY, TOKEN, TYPICAL, WIDTH, PlantedEngine
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.reference import ReferenceEngine
from trimtab.errors import InputError, UnknownName
from trimtab.evaluation import calibration, limits
from trimtab.evaluation.calibration import OPERATORS, Search, calibrated, points_of, searches, solve
from trimtab.evaluation.items import Item
from trimtab.evaluation.limits import LIMITS, Limit, limit_of, repeated
from trimtab.evaluation.scorers.logprob import Logprob
from trimtab.evaluation.sign_check import check_signs
from trimtab.interventions import Ablate, Cap, Pin
from trimtab.plans import EMPTY, Placement, SteeringPlan
from trimtab.safe_range import SafeRangeWarning, beyond, safe_range, share, with_safe_range
from trimtab.sites import Site


def prompts(engine, count=3):
    return [engine.encode(f"i{k} w1", bare=True) for k in range(count)]


def wanted(engine, layer=2, operator="add", **rows):
    vectors = engine.vectors(**(rows or {"joy": JOY}))
    return searches(vectors, [Site(layer)], [operator])


def kl(engine, dose, item):
    """Closed form: every token of a row is emitted by a state with the same push."""
    push = dose * TYPICAL
    q = engine.logits((TOKEN[f"i{item}"],), EMPTY, 0)
    p = q.copy()
    p[TOKEN["joy"]] += engine.slope * engine.efficacy[2] * push
    p -= np.logaddexp.reduce(p)
    return float(np.exp(p) @ (p - q))


@pytest.mark.parametrize("limit", [0.05, 0.5])
def test_the_mean_divergence_is_solved_to_its_root(limit):
    engine = PlantedEngine()
    up, down = wanted(engine)
    found = solve(engine, [up, down], limit_of(f"kl_mean={limit}", tokens=3), prompts(engine))
    for sign, answer in ((1, found[0]), (-1, found[1])):
        gap = lambda a: np.mean([kl(engine, sign * a, k) for k in range(3)]) - limit  # noqa: B023, E731
        if gap(4.0) < 0:  # pushing joy away can only empty it: the divergence has a ceiling
            assert answer.strength == 4.0 and not answer.reached
            continue
        root = brentq(gap, 0.001, 4.0)
        assert answer.strength == pytest.approx(root, rel=0.012) and answer.strength <= root
        assert answer.cost <= limit and answer.monotone and answer.reached
        assert answer.half_cost == pytest.approx(gap(answer.strength / 2) + limit, rel=1e-3)


def test_the_quantile_is_over_all_tokens():
    engine = PlantedEngine()
    limit = limit_of("kl_p95", tokens=4)
    plans = [wanted(engine)[0].plan(0.5)]
    each = np.repeat([kl(engine, 0.5, k) for k in range(3)], 4)
    assert limit.values(engine, plans, prompts(engine))[0] == pytest.approx(np.quantile(each, 0.95), rel=1e-4)


def test_a_cliff_is_found_to_one_percent_under_both_adds():
    engine = PlantedEngine(breaks=0.37 * TYPICAL, slope=0.0)
    found = solve(engine, wanted(engine), limit_of("kl_p95=1", tokens=2), prompts(engine))
    assert [f.strength for f in found] == pytest.approx([0.37, 0.37], rel=0.012)
    assert all(f.strength <= 0.37 for f in found)
    renormalised = solve(
        engine, wanted(engine, operator="add-renormalised"), limit_of("kl_p95", tokens=2), prompts(engine)
    )
    assert renormalised[0].strength > 0.37  # the norm is kept, so that the same dose is a shorter push


def test_ablation_of_what_is_not_there_costs_nothing():
    engine = PlantedEngine()
    (search,) = wanted(engine, operator="ablate")
    (found,) = solve(engine, [search], limit_of("kl_mean", tokens=2), prompts(engine))
    assert found.strength == 1.0 and not found.reached
    with pytest.raises(InputError, match="no side"):
        Search(search.vectors, search.site, "ablate", -1)
    with pytest.raises(UnknownName, match="operator"):
        Search(search.vectors, search.site, "adds")


class Valley(Limit):
    """A cost that rises, falls and rises again: bad between .2 and .5, and above 1."""

    name, default, unit, limit = "valley", 1.0, "", 1.0

    def values(self, engine, plans, prompts):
        doses = np.array([p.placements[0].op.dose for p in plans])
        return np.where((np.abs(doses) > 0.2) & (np.abs(doses) < 0.5) | (np.abs(doses) > 1), 2.0, 0.1)


def test_what_lies_beyond_a_first_cliff_is_not_safe():
    engine = PlantedEngine()
    found = solve(engine, wanted(engine), Valley(), prompts(engine))
    assert all(0.19 < f.strength <= 0.2 for f in found)


def test_a_push_that_always_breaks_has_no_range():
    engine = PlantedEngine(breaks=0.001)
    found = solve(engine, wanted(engine), limit_of("kl_p95", tokens=2), prompts(engine))
    assert [f.strength for f in found] == [0, 0]


def test_all_searches_share_their_batches():
    engine = PlantedEngine()
    many = searches(engine.vectors(), [Site(n) for n in range(4)], ["add", "add-renormalised", "ablate"])
    assert len(many) == 2 * 4 * 5
    counted = []
    solve(engine, many, limit_of("kl_mean", tokens=2), prompts(engine), steps=3, advance=counted.append)
    assert engine.calls == 2 * 5  # ladder, three halvings, halves: one generation and one scoring each
    assert sum(counted) <= points_of(len(many), 3)


def exact(found):
    """Every figure of every answer, so that they can be compared to the bit (NaN is not equal to itself)."""
    return [(repr(f), f.curve) for f in found]


def alone_and_together(build, limit, many, texts, **how):
    """Answers one search at a time and all at once, each on engines of its own, with the engines that gave them."""
    engines = [build() for _ in range(len(many) + 1)]
    alone = [
        solve(e, [w], limit, [e.encode(t, bare=True) for t in texts], **how)[0] for e, w in zip(engines, many)
    ]
    last = engines[-1]
    return alone, solve(last, many, limit, [last.encode(t, bare=True) for t in texts], **how), engines


def test_searches_that_share_rounds_end_where_each_would_alone():
    def build():
        return PlantedEngine(breaks=0.37 * TYPICAL)

    many = searches(spread(build()), [Site(1), Site(2)], OPERATORS)
    texts = [f"i{k} w1" for k in range(3)]
    alone, together, engines = alone_and_together(build, limit_of("kl_p95", tokens=2), many, texts)
    assert exact(together) == exact(alone)  # strengths, costs and every measured point
    assert len({f.strength for f in together}) > 5 and not all(f.reached for f in together)
    own = [e.calls for e in engines[:-1]]
    assert engines[-1].calls == max(own) < sum(own) / 20


def test_a_real_batch_gives_the_answers_of_single_searches():
    """The reference engine multiplies all rows at once, so that only the last digits may depend on who is beside."""
    engine = ReferenceEngine.load()
    vectors = ConceptVectors.from_directions(
        Direction.from_raw(name, Site(n), row, typical_norm=4.0, mean=0.1, std=1.0)
        for name, row in list(engine.planted.items())[:2]
        for n in (1, 2)
    )
    many = searches(vectors, [Site(1), Site(2)], ["add", "ablate", "pin"])
    texts = ["I feel", "we seem really"]
    alone, together, _ = alone_and_together(
        lambda: engine, limit_of("kl_mean=0.2", tokens=3), many, texts, steps=3
    )
    assert [f.strength for f in together] == [f.strength for f in alone]
    for a, b in zip(together, alone, strict=True):
        assert np.array(a.curve) == pytest.approx(np.array(b.curve), rel=1e-6, abs=1e-9)


class Cliffs(Limit):
    """Each search breaks at its own dose; every call is noted, and the one numbered `dies` never returns."""

    name, default, unit, limit = "cliffs", 1.0, "", 1.0

    def __init__(self, ends, dies=None):
        self.ends, self.dies, self.calls = ends, dies, []

    def values(self, engine, plans, prompts):
        if len(self.calls) == self.dies:
            raise KeyboardInterrupt
        placed = [p.placements[0] for p in plans]
        self.calls.append([(p.layers[0], p.op.dose) for p in placed])
        return np.array([2.0 if abs(p.op.dose) > self.ends[p.layers[0]] else 0.5 for p in placed])


def four(engine):
    """One search per layer, with the doses at which they break: never, twice somewhere, and at once."""
    vectors = engine.vectors(joy=JOY)
    return [Search(vectors, Site(n)) for n in range(4)], [9.0, 0.3, 0.7, 0.001]


def test_a_search_whose_end_is_known_drops_out():
    engine = PlantedEngine()
    many, ends = four(engine)
    limit = Cliffs(ends)
    solve(engine, many, limit, prompts(engine), steps=3)
    assert [sorted({n for n, _ in call}) for call in limit.calls] == [[0, 1, 2, 3], *[[1, 2]] * 3, [0, 1, 2]]
    assert [len(call) for call in limit.calls] == [24, 2, 2, 2, 3]


def test_a_call_holds_no_more_rows_than_it_may(monkeypatch):
    engine = PlantedEngine()
    many, ends = four(engine)
    whole = solve(engine, many, Cliffs(ends), prompts(engine))
    monkeypatch.setattr(calibration, "ROWS", 17)  # three prompts: five plans
    limit = Cliffs(ends)
    assert exact(solve(engine, many, limit, prompts(engine))) == exact(whole)
    assert max(map(len, limit.calls)) == 5


@pytest.mark.parametrize("dies", [0, 1, 2, 5, 10])
def test_an_interrupted_calibration_goes_on_where_it_stopped(dies):
    engine = PlantedEngine()
    many, ends = four(engine)
    unbroken = Cliffs(ends)
    whole = solve(engine, many, unbroken, prompts(engine), steps=9)
    known = [{} for _ in many]
    keep = lambda i, strength, cost: known[i].__setitem__(strength, cost)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        solve(engine, many, Cliffs(ends, dies), prompts(engine), steps=9, keep=keep)
    rest = Cliffs(ends)
    assert exact(solve(engine, many, rest, prompts(engine), steps=9, known=known)) == exact(whole)
    assert rest.calls == unbroken.calls[dies:]


def test_whole_distributions_are_held_for_few_rows_at_a_time(monkeypatch):
    engine = PlantedEngine()
    plans, seen = [s.plan(0.2) for s in wanted(engine)], []
    limit = limit_of("invalid", answers=(TOKEN["joy"], TOKEN["other"]))
    at_once = limit.values(engine, plans, prompts(engine))
    real = engine.score
    monkeypatch.setattr(engine, "score", lambda rows: seen.append(len(rows)) or real(rows))
    monkeypatch.setattr(limits, "NUMBERS", 4 * engine.info.vocab_size)
    assert (limit.values(engine, plans, prompts(engine)) == at_once).all()
    assert seen == [4, 2]


def spread(engine, std=2.0):
    """The engine's vectors with the mean and the standard deviation of each coordinate stored."""
    found = engine.vectors()
    sites = [(c, s) for c in found.concepts for s in found.sites]
    return ConceptVectors.from_directions(replace(found.direction(c, s), mean=0.0, std=std) for c, s in sites)


@pytest.mark.parametrize("operator", ["pin", "cap"])
def test_pins_and_caps_are_solved_in_stored_standard_deviations(operator):
    engine = PlantedEngine(breaks=0.37 * TYPICAL, slope=0.0)
    vectors = spread(engine).only(["joy"])
    up, down = searches(vectors, [Site(2)], [operator])
    found = solve(engine, [up, down], limit_of("kl_p95", tokens=2), prompts(engine))
    # The state has no coordinate of its own, so that a pin, a floor and a ceiling each push by what they say.
    assert [f.strength for f in found] == pytest.approx([0.37 * TYPICAL / 2.0] * 2, rel=0.012)
    with pytest.raises(InputError, match="standard deviations"):
        searches(engine.vectors(), [Site(2)], [operator])


def test_every_operator_says_when_it_goes_beyond():
    engine = PlantedEngine(breaks=0.37 * TYPICAL, slope=0.0)
    vectors = spread(engine).only(["joy"])
    many = searches(vectors, [Site(2)], ["pin", "cap", "ablate"])
    found = solve(engine, many, limit_of("kl_p95", tokens=2), prompts(engine), steps=2)
    done = calibrated(vectors, many, found, {"limit": "kl_p95", "value": 1.0})
    half = with_safe_range(done.calibration, "joy", "layer_2", "ablate", {"low": 0.0, "high": 0.5})
    done = replace(done, calibration=half)

    def said(op, factor=1.0):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            engine.resolve(
                SteeringPlan((Placement(op, done, layers=[2], factor=factor),)), prompts(engine)[0]
            )
        return " ".join(str(w.message) for w in found)

    inside = [
        Pin(0.5, z=True),
        Pin(1.0),
        Cap(low=0.5, z=True),
        Cap(low=-9.0, z=True),
        Cap(high=9.0),
        Ablate(0.6),
    ]
    assert [said(op) for op in inside] == [""] * 6 and said(Ablate(), 0.5) == ""
    assert "pin +2 of 'joy' is beyond its calibrated safe range" in said(Pin(4.0))
    assert "pin -2 of 'joy'" in said(Pin(-2.0, z=True))
    assert "cap +2 of 'joy'" in said(Cap(low=2.0, high=9.0, z=True)) and "cap -2" in said(Cap(high=-4.0))
    assert "ablate +0.8 of 'joy' is beyond its calibrated safe range (1.6 times)" in said(Ablate(0.2))


def test_neutral_loss_repetition_and_validity():
    engine = PlantedEngine(breaks=0.3 * TYPICAL)
    search = wanted(engine)[0]
    plans = [search.plan(0.2), search.plan(0.4)]
    loss = limit_of("delta_nll", texts=2).values(engine, plans, prompts(engine))
    assert abs(loss[0]) < 0.5 and loss[1] > 30
    assert repeated((1, 2, 3, 1, 2, 3)) == 0.25 and repeated((1, 2)) == 0.0
    invalid = limit_of("invalid", answers=(TOKEN["joy"], TOKEN["other"])).values(
        engine, plans, prompts(engine)
    )
    assert invalid[1] == 1.0
    again = limit_of("repetition", tokens=6).values(engine, [SteeringPlan()], prompts(engine))
    assert again[0] == 0.0
    with pytest.raises(InputError, match="reference"):
        limit_of("coherence").values(engine, plans, prompts(engine))


@pytest.mark.parametrize("bad", ["kl", "kl_p95=x", "kl_p95=-1", "kl_p95=nan"])
def test_bad_limits_are_refused(bad):
    with pytest.raises(InputError):
        limit_of(bad)
    assert limit_of("kl_p95").limit == LIMITS["kl_p95"].default


def stored(engine):
    vectors = engine.vectors()
    many = searches(vectors, [Site(2)], ["add"])
    found = solve(engine, many, limit_of("kl_p95", tokens=2), prompts(engine), steps=2)
    return vectors, calibrated(vectors, many, found, {"limit": "kl_p95", "value": 1.0})


def test_the_range_travels_in_the_manifest_and_not_in_the_hash(tmp_path):
    engine = PlantedEngine(breaks=0.3 * TYPICAL)
    vectors, done = stored(engine)
    assert done.hash == vectors.hash and not vectors.calibration
    done.save(tmp_path / "joy.safetensors")
    again = ConceptVectors.load(tmp_path / "joy.safetensors")
    low, high = safe_range(again.calibration, "joy", "layer_2")
    assert -0.3 <= low < -0.2 and 0.2 < high <= 0.3
    assert again.calibration["safe"]["joy"]["layer_2"]["add"]["limit"] == "kl_p95"
    assert safe_range(again.calibration, "joy", "layer_1") is None


def test_an_engine_says_when_a_plan_goes_beyond():
    engine = PlantedEngine(breaks=0.3 * TYPICAL)
    _, done = stored(engine)
    prompt, joy = prompts(engine)[0], done.only(["joy"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = engine.resolve(SteeringPlan.add(joy, dose=0.2, layers=[2]), prompt)
        elsewhere = engine.resolve(SteeringPlan.add(joy, dose=2.0, layers=[1]), prompt)  # never calibrated
    assert inside.placements[0].source["safe"][1] <= 0.3 and "safe" not in elsewhere.placements[0].source
    with pytest.warns(SafeRangeWarning, match=r"dose \+0.9 of 'joy' is beyond its calibrated safe range"):
        engine.resolve(SteeringPlan.add(joy, dose=0.9, layers=[2]), prompt)
    with pytest.warns(SafeRangeWarning):
        engine.resolve(SteeringPlan.add(joy, dose=-0.9, layers=[2]), prompt)
    plain = SteeringPlan.add(replace(joy, calibration={}), dose=0.9, layers=[2]).resolve(
        prompt, {}, engine.info
    )
    assert (
        plain.fingerprint
        == SteeringPlan.add(joy, dose=0.9, layers=[2]).resolve(prompt, {}, engine.info).fingerprint
    )


def test_shares_of_the_range_add_up():
    safe = {"concept": "joy", "safe": [-0.5, 1.0]}
    assert (
        share(0.5, (-0.5, 1.0)) == 0.5
        and share(-0.5, (-0.5, 1.0)) == 1.0
        and share(-0.1, (0.0, 1.0)) == np.inf
    )
    assert beyond([{**safe, "dose_here": 0.6}, {**safe, "dose_here": 0.3}]) == []
    assert "1.2 times" in beyond([{**safe, "dose_here": 0.6}, {**safe, "dose_here": 0.6}])[0]
    assert beyond([{"concept": "joy", "dose_here": 9.0}]) == []


@pytest.mark.parametrize(("sign", "verdict"), [(1, "right"), (-1, "reversed"), (0, "not told")])
def test_the_sign_is_told_by_behaviour(sign, verdict):
    engine = PlantedEngine(noise=0.0 if sign else 1.0)
    row = sign * JOY if sign else np.eye(WIDTH)[20]
    items = [
        Item.of(f"i{k} w1", id=f"i{k}", continuations={"joy": ["joy"], "other": ["other"]}) for k in range(8)
    ]
    (check,) = check_signs(engine, engine.vectors(joy=row), {"joy": (Site(2), -0.1, 0.5)}, items, Logprob())
    assert check.verdict == verdict and check.to_json()["n"] == 8
    if sign:
        expected = sign * (0.5 + 0.1) * TYPICAL * engine.slope
        assert check.to_json()["doses"] == [-0.1, 0.5]
        assert check.difference.mean == pytest.approx(expected, abs=1e-4)


class Says(PlantedEngine):
    """Every sample of prompt k is text k of its plan's list: plain, then steered."""

    texts = (["a b c d"] * 4, ["a b c d", "a b c x", "a b c d", "q r s t"])

    def _sample(self, r, index):
        from dataclasses import replace as changed

        item = int(self.decode(r.prompt.tokens[:1])[1:])
        return changed(super()._sample(r, index), text=self.texts[bool(r.plan.effective)][item])


def test_the_coherence_drop_is_pooled_and_has_a_margin_over_prompts():
    from trimtab.evaluation.coherence import Reference
    from trimtab.evaluation.limits import CoherenceDrop

    engine, plans = Says(), [wanted(PlantedEngine())[0].plan(0.2)]
    reference = Reference.from_texts(["a b c d"])
    bare = CoherenceDrop(reference=reference, margin=0.0).values(engine, plans, prompts(engine, 4))
    assert bare[0] == pytest.approx(3 / 8)  # of two trigrams per text: none, one, none and two are unknown
    upper = CoherenceDrop(reference=reference, margin=1.0).values(engine, plans, prompts(engine, 4))
    drops = np.array([0, 0.5, 0, 1.0])  # all texts are equally long, so that the drop is a plain mean
    assert upper[0] - bare[0] == pytest.approx(drops.std(ddof=1) / 2)
