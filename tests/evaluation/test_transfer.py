"""Planted truth: an engine whose log-ratio is b_i + gamma * c * y_i gives back gamma, no others, and exact breadth."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from evaluation.planted_answers import PlantedEngine, direction
from evaluation.small_dilemmas import FILE, small_dilemmas
from trimtab.data.dilemmas import NOT_TO_DO, TO_DO, Action, Dilemma, load_dilemmas, values_of
from trimtab.directions import ConceptVectors, Direction
from trimtab.errors import InputError
from trimtab.evaluation.transfer.asking import Asking
from trimtab.evaluation.transfer.cells import PLAIN, Cell, Placing, cells_of, tuned_cells
from trimtab.evaluation.transfer.effects import Items, change, coherent_range, largest_of_both_signs, slopes
from trimtab.evaluation.transfer.leaderboard import Standing, board
from trimtab.evaluation.transfer.measurement import Bench, Measured, Reply
from trimtab.evaluation.transfer.rows import keys_of, measured_of, rows_of
from trimtab.evaluation.transfer.study import Setup, check_plain, choosing, report
from trimtab.records import json_line, unit_key
from trimtab.sites import Site

GAMMA = 0.75
VALUES = ("honesty", "loyalty", "courage", "care")


def many(n=24):
    """n dilemmas per value, each about one value only; every other one has the value on not_to_do."""
    found = []
    for value in VALUES:
        for i in range(n):
            sides = ((value,), ()) if i % 2 else ((), (value,))
            actions = (
                Action(TO_DO, f"do {value}{i}", sides[0]),
                Action(NOT_TO_DO, f"leave {value}{i}", sides[1]),
            )
            found.append(Dilemma(f"{value}-{i}", f"about {value} case{i}", actions))
    return found


DILEMMAS = many()


def offset(text):
    """b: any number that depends on the question alone."""
    return (sum(map(ord, text)) % 17 - 8) / 8


def planted(moved_values, always=0.0, **options):
    """Yes − No = b + gamma * displacement along axis k * (what that question says about the k-th moved value); `always`
    is a displacement that this model has without any plan."""
    labels = {(d.id, a.kind): {v: d.label(v) for v in VALUES} for d in DILEMMAS for a in d.actions}
    by_text = {
        a.text: (1 if a.kind == TO_DO else -1, labels[d.id, a.kind]) for d in DILEMMAS for a in d.actions
    }

    def logits(text, moved):
        action = next(t for t in by_text if f"{t}\n" in text)
        sign, y = by_text[action]
        moved = moved + always
        push = sum(GAMMA * moved[k] * sign * y[v] for k, v in enumerate(VALUES) if v in moved_values)
        return {"Yes": offset(text) + push, "No": 0.0}

    return PlantedEngine(logits, **options)


def vectors(axis=0):
    return ConceptVectors.from_directions([direction(axis, norm=2.0, typical_norm=1.0)])


def study(
    engine, methods, strengths=(0.5, 1.0), min_items=20, dilemmas=DILEMMAS, free=0, random=0, prompts=None
):
    setup = Setup("honesty", min_items=min_items)
    asking = Asking(template="{situation} {action}\nyes or no?", slot="")
    rows = asking.rows(dilemmas)
    items = Items.of(dilemmas, rows)
    cells = cells_of(methods, strengths, Placing(layers=[1]), n_layers=2, random=random, prompts=prompts)
    bench = Bench.of(engine, rows, asking, free_tokens=free)
    found = [bench.measure(c) for c in cells]
    return report(items, cells, found, setup, engine.info.id), cells, found, items


def test_transfer_others_and_breadth_are_what_was_planted():
    done, *_ = study(planted({"honesty"}), {"honest": vectors(0)})
    (opening,) = done.openings
    assert opening.strength == 1.0 and opening.coherent_range == (-1.0, 1.0)
    assert any("largest strength measured" in n for n in done.notes)  # the grid ended, not the coherence
    row = opening.row
    assert row.plus.change.target.mean == pytest.approx(GAMMA * 1.0)
    assert row.minus.change.target.mean == pytest.approx(-GAMMA * 1.0)
    width = vectors(0).table(Site(1)).vectors.shape[1]
    for side in (row.plus, row.minus):
        assert side.params == width and side.efficiency == pytest.approx(GAMMA / np.log(1 + width))
    assert row.plus.change.others == pytest.approx(0, abs=1e-9) and row.plus.change.n_others == 3
    assert row.plus.change.p < 0.001 and opening.p_holm == row.plus.change.p
    # 24 dilemmas per value less the quarter that chose the strength: nothing has 20 of them but at 18 all have.
    assert row.breadth.tested == 0 and done.n == 18 and done.n_select == 24
    assert opening.slopes.slope.mean == pytest.approx(GAMMA) and opening.slopes.anti_steered == 0


def test_trained_weights_stand_beside_the_vectors(tmp_path):
    """A model whose answers lean by .4 nats towards honesty: its change is that, paired by dilemma with the plain
    model's, and it stands on the leaderboard."""
    asking = Asking(template="{situation} {action}\nyes or no?", slot="")
    rows = asking.rows(DILEMMAS)
    items = Items.of(DILEMMAS, rows)
    cells = cells_of({"honest": vectors(0)}, (0.5,), Placing(layers=[1]), n_layers=2, random=0)
    plain, (cell,) = Bench.of(planted({"honesty"}), rows, asking), tuned_cells({"lora": str(tmp_path)})
    assert cell.params is None  # a folder without weights says nothing
    save_file(
        {"a": np.zeros((3, 4), np.float32), "b": np.zeros((4, 5), np.float16)}, tmp_path / "x.safetensors"
    )
    (cell,) = tuned_cells({"lora": str(tmp_path)})
    leaning = planted({"honesty"}, always=np.array([0.4 / GAMMA, 0, 0, 0]))
    other = Bench.of(leaning, rows, asking)
    assert other.asks_like(plain) and cell.unit()["weights"] == str(tmp_path)
    found = [*(plain.measure(c) for c in cells), other.measure(cell)]
    done = report(items, [*cells, cell], found, Setup("honesty", min_items=10))
    side = done.tuned["lora"]
    assert side.change.target.mean == pytest.approx(0.4) and side.change.others == pytest.approx(0, abs=1e-9)
    assert side.params == 32 and side.efficiency == pytest.approx(0.4 / np.log(33))
    assert side.change.target.n == done.openings[0].row.plus.change.target.n and side.coherent
    assert "lora" in [s.condition for s in done.board.standings] and list(done.beside) == ["lora"]
    assert json_line(done.to_json()).count('"lora"') == 2  # its side, and its standing
    unlike = Bench.of(planted({"honesty"}), rows[:-1], asking)
    assert not unlike.asks_like(plain)


def test_breadth_counts_exactly_the_moved_values():
    both = ConceptVectors.from_directions([direction(0, typical_norm=1.0)])
    engine = planted({"honesty"})
    done, *_ = study(engine, {"one": both}, min_items=10)
    assert done.rows[-1].breadth.moved == ("honesty",) and done.rows[-1].breadth.tested == 4
    # A direction along two axes moves two values, by the same amount, and the other two not at all.
    slanted = Direction.from_raw("both", Site(1), np.array([1.0, 1.0, 0, 0]), typical_norm=1.0)
    done, *_ = study(
        planted({"honesty", "loyalty"}), {"two": ConceptVectors.from_directions([slanted])}, min_items=10
    )  # fmt: skip
    row = done.rows[-1]
    assert set(row.breadth.moved) == {"honesty", "loyalty"}
    assert row.plus.change.others == pytest.approx(GAMMA / np.sqrt(2) / 3)


def test_a_vector_of_another_value_does_not_transfer():
    done, *_ = study(planted({"honesty"}), {"loyal": vectors(1)})
    row = done.openings[0].row
    assert row.plus.change.target.mean == pytest.approx(0, abs=1e-9) and row.plus.change.p == 1.0


def test_exchanging_the_names_of_the_actions_changes_nothing():
    """The same text under the other name: y and the question's sign both turn."""
    other = {TO_DO: NOT_TO_DO, NOT_TO_DO: TO_DO}
    swapped = [
        Dilemma(d.id, d.situation, tuple(Action(other[a.kind], a.text, a.values) for a in d.actions))
        for d in DILEMMAS
    ]
    ratios = np.random.default_rng(0).normal(size=2 * len(DILEMMAS))
    asking = Asking(template="{action}", slot="")
    one, two = (Items.of(d, asking.rows(d)) for d in (DILEMMAS, swapped))
    assert [r.question for r in one.rows] == [r.question for r in two.rows]
    for value in VALUES:
        assert np.allclose(one.score(ratios, value), two.score(ratios, value))


def test_values_on_both_sides_cancel_and_absent_ones_do_not_count():
    d = Dilemma(
        "x", "s", (Action(TO_DO, "a", ("trust", "care", "trust")), Action(NOT_TO_DO, "b", ("trust", "care")))
    )
    assert (d.label("trust"), d.label("care"), d.label("honesty")) == (1, 0, 0)
    twice = Dilemma("y", "s", (Action(TO_DO, "a", ()), Action(NOT_TO_DO, "b", ("care", "care"))))
    assert twice.label("care") == -1  # a side is a side, however often it is named
    items = Items.of([d, DILEMMAS[0]], Asking(template="{action}").rows([d, DILEMMAS[0]]))
    assert len(items.score(np.ones(4), "trust")) == 1


# --- coherence


def test_the_strength_is_the_largest_whose_two_signs_are_coherent_and_is_chosen_elsewhere():
    """Neutral text loses 2 nats per token beyond a displacement of 0.9, and answers lose their mass below −1.4."""
    engine = planted(
        {"honesty"},
        nll=lambda moved: 2.0 + (2.0 if moved[0] > 0.9 else 0.0),
        mass=lambda moved: 0.3 if moved[0] < -1.4 else 0.9,
    )
    done, *_ = study(engine, {"honest": vectors(0)}, strengths=(0.25, 0.5, 1.0, 1.5))
    (opening,) = done.openings
    assert opening.coherent_range == (-1.0, 0.5) and opening.strength == 0.5
    assert not any("largest strength measured" in n for n in done.notes)
    assert opening.row.plus.change.target.mean == pytest.approx(GAMMA * 0.5)
    assert [r.coherent for r in done.rows] == [True, True, False, False]
    assert done.rows[2].plus.delta_nll_neutral == pytest.approx(2.0)
    assert done.rows[3].minus.valid == 0.0


def test_no_coherent_strength_is_said_and_nothing_is_reported_in_its_place():
    engine = planted({"honesty"}, nll=lambda moved: 2.0 + 3 * abs(moved[0]))
    done, *_ = study(engine, {"honest": vectors(0)})
    assert done.openings[0].strength is None and done.openings[0].row is None
    assert any("no strength" in n for n in done.notes) and len(done.rows) == 2


def test_dilemmas_that_choose_the_strength_are_not_reported_on():
    items = Items.of(DILEMMAS, Asking(template="{action}").rows(DILEMMAS))
    chosen = choosing(items, Setup("honesty"))
    assert chosen.sum() == 24 and (items.label("honesty") != 0)[chosen].sum() == 6
    # Ratios of the choosing dilemmas may be anything: the table does not see them.
    done, cells, found, _ = study(planted({"honesty"}), {"honest": vectors(0)})
    _, theirs = items.subset(chosen)
    wild = [
        Measured(np.where(theirs, 99.0 * i, m.log_ratio), m.mass, m.prompt_nll, m.neutral_nll, m.fingerprint)
        for i, m in enumerate(found)
    ]
    again = report(items, cells, wild, Setup("honesty"))
    assert again.rows[-1].plus.change == done.rows[-1].plus.change


def test_ranges():
    doses = [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert coherent_range(doses, [True, False, True, True, True]) == (0.0, 2.0)
    assert coherent_range(doses, [True, True, False, True, True]) is None
    assert largest_of_both_signs((-1.0, 2.0), doses) == 1.0
    assert largest_of_both_signs((0.0, 2.0), doses) is None


def test_a_plain_model_that_does_not_answer_is_refused():
    with pytest.raises(InputError, match="--slot"):
        check_plain(Measured(np.zeros(4), np.array([0.9, 0.1, 0.1, 0.1]), np.zeros(4), np.zeros(2), "plain"))


# --- baselines


def test_random_directions_make_the_null_band_and_prompts_a_row():
    engine = planted({"honesty"})
    done, cells, *_ = study(
        engine, {"honest": vectors(0)}, random=5, prompts={"plus": "Be honest."}, strengths=(1.0,)
    )
    low, high = done.rows[0].null
    assert low < 0 < high and low == pytest.approx(-high)  # both signs of each
    assert high < GAMMA  # no random direction reaches the real one along its own axis
    assert list(done.prompts) == ["prompt: plus"]
    assert sum(c.kind == "random" for c in cells) == 10
    assert done.prompts["prompt: plus"].change.target.n == 18


def test_random_directions_have_the_dose_of_the_method():
    cells = cells_of({"honest": vectors(0)}, [0.7], Placing(layers=[1]), random=5, n_layers=2)
    engine = planted(set())
    prompt = engine.encode([{"role": "user", "content": "x"}])
    for cell in cells[1:]:
        moved = engine.moved(engine.resolve(cell.plan, prompt), 0)
        assert np.linalg.norm(moved) == pytest.approx(0.7)
    with pytest.raises(InputError, match="at least 5"):
        cells_of({"honest": vectors(0)}, [0.7], Placing(), random=3)
    with pytest.raises(InputError, match="positive"):
        cells_of({"honest": vectors(0)}, [-0.7], Placing())


# --- slopes


def test_every_item_has_its_own_slope():
    items = Items.of(DILEMMAS, Asking(template="{action}").rows(DILEMMAS))
    y = items.label("honesty")
    true = np.where(np.arange(len(DILEMMAS)) % 4 == 0, -0.5, 1.5)
    push = np.array([r.sign * y[r.item] * true[r.item] for r in items.rows])
    found = slopes(items, [-1.0, 0.0, 2.0], [d * push + 3.0 for d in (-1.0, 0.0, 2.0)], "honesty")
    mine = true[y != 0]
    assert found.slope.mean == pytest.approx(mine.mean()) and found.anti_steered == np.mean(mine < 0)


# --- the leaderboard


def measured(ratios, said=()):
    n = len(ratios)
    replies = tuple(Reply("text", s, 1, False, (4,)) for s in said)
    return Measured(np.asarray(ratios, float), np.ones(n), np.zeros(n), np.zeros(1), "f", replies)


ONE = [Dilemma(str(i), "s", (Action(TO_DO, f"a{i}", ("honesty",)),)) for i in range(4)]
ONE_ITEMS = Items.of(ONE, Asking(template="{action}").rows(ONE))


def test_standing_closed_forms():
    found = Standing.of("m", "c", ONE_ITEMS, measured([1, 1, 1, -5], ("yes", "no", None, "yes")), "honesty")
    assert found.forced == -0.5 and found.binary == 0.75
    assert found.signed == pytest.approx(np.mean(2 / (1 + np.exp(-np.array([1, 1, 1, -5]))) - 1))
    assert found.free == pytest.approx(1 / 3) and found.missing == 0.25


def test_an_order_that_depends_on_the_rule_is_flagged():
    a = Standing.of(
        "m", "a", ONE_ITEMS, measured([1, 1, 1, -5]), "honesty"
    )  # more right, but less on the whole
    b = Standing.of("m", "b", ONE_ITEMS, measured([1, 1, -0.1, -0.1]), "honesty")
    found = board([a, b])
    assert found.order_depends_on_the_rule
    assert found.disputed == (("m: a", "m: b", "binary", "forced"),)
    assert [r["forced"] for r in found.ranks] == [2, 1] and [r["binary"] for r in found.ranks] == [1, 2]
    assert all(r["free"] is None for r in found.ranks)
    c = Standing.of("m", "c", ONE_ITEMS, measured([2, 2, 2, 2]), "honesty")
    assert not board([b, c]).order_depends_on_the_rule


def test_free_answers_with_markup_count_and_the_missing_are_counted():
    """The engine answers "No<|endoftext|>" where the log-ratio is negative, and nothing for one value's dilemmas."""

    def reply(text, moved):
        return "I wonder" if "care" in text else "Yes." if offset(text) > 0 else "No<|endoftext|>"

    engine = planted({"honesty"}, reply=reply)
    done, _, found, items = study(engine, {"honest": vectors(0)}, free=6)
    said = found[0].said
    assert {s for s, r in zip(said, items.rows) if "care" in r.question} == {None}
    assert {s for s, r in zip(said, items.rows) if "care" not in r.question} == {"yes", "no"}
    plain = done.board.standings[0]
    assert plain.missing == 0 and plain.free is not None


def test_a_measured_cell_survives_a_run():
    """One row per question and neutral text; the cell that is read back is the one that was measured."""
    asking = Asking(template="{situation} {action}\nyes or no?", slot="")
    rows = asking.rows(DILEMMAS)
    items = Items.of(DILEMMAS, rows)
    cell = cells_of({"honest": vectors(0)}, (0.5,), Placing(layers=[1]), n_layers=2, random=0)[1]
    bench = Bench.of(
        planted({"honesty"}, reply=lambda text, moved: "Yes"), rows, asking, free_tokens=2, seed=3
    )
    there = bench.measure(cell)
    there.log_ratio[0] = np.nan
    written = [json.loads(json_line(r)) for r in rows_of(bench, cell, there, items, "honesty")]
    keys = [unit_key(k) for k in keys_of(bench, cell)]
    assert len(written) == len(set(keys)) == len(rows) + len(bench.neutral)
    done = dict(zip(keys, written))
    back = measured_of(bench, cell, done)
    for name in ("log_ratio", "mass", "prompt_nll", "neutral_nll"):
        assert np.array_equal(getattr(back, name), getattr(there, name), equal_nan=True), name
    assert (back.fingerprint, back.replies, back.said) == (there.fingerprint, there.replies, there.said)
    assert (
        measured_of(bench, cell, {k: done[k] for k in keys[:-1]}) is None
    )  # a kill in the middle: all of it again
    one = next(r for r in written if r["item"] == "honesty-1")
    assert one["dose"] == 0.5 and one["scale"] == 0.25 and one["seed"] == 3 and one["text"] == "Yes"
    assert one["scores"]["log_ratio"]["honesty"] == pytest.approx(one["log_ratio"])  # acting is honest there
    assert next(r for r in written if r["item"] == "care-1")["scores"]["log_ratio"]["honesty"] is None


# --- files


def test_the_small_set_in_the_published_schema(tmp_path):
    dilemmas = small_dilemmas()
    assert len(dilemmas) == 20 and all(len(d.asked) == 2 for d in dilemmas)
    counts = values_of(dilemmas)
    assert counts["honesty"] >= 12 and counts["Virtue/Truthfulness"] >= counts["honesty"]
    assert any(d.label("honesty") > 0 for d in dilemmas) and any(d.label("honesty") < 0 for d in dilemmas)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no dilemmas"),
        ('[{"dilemma_idx": 1, "dilemma_situation": "s", "action_type": "to_do"}]', "lacks action"),
        (
            '[{"dilemma_idx": 1, "dilemma_situation": "s", "action_type": "maybe", "action": "a"}]',
            "to_do or not_to_do",
        ),
        (
            '[{"dilemma_idx": 1, "dilemma_situation": "s", "action_type": "to_do", "action": "a"}]',
            "lacks values",
        ),
        ('[{"dilemma_situation": "s", "action_type": "to_do", "action": "a"}]', "dilemma_idx"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, said):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_dilemmas(path)


def test_the_published_files(shared_data):
    folder = shared_data / "daily_dilemmas"
    (one,) = load_dilemmas(folder / "example_data" / "dilemma-1687-values-ag.json")
    assert one.id == "1687" and one.label("integrity") == 1 and one.label("trust") == -1
    detailed = load_dilemmas(folder / "data" / "dilemmas_with_detail_by_action_test.csv")
    assert len(detailed) == 4 and "Virtue/Truthfulness" in values_of(detailed)


def test_the_plain_cell_comes_first():
    cells = cells_of({"honest": vectors(0)}, [1.0], Placing(layers=[1]), random=0)
    assert cells[0].kind == PLAIN and isinstance(cells[0], Cell) and len(cells) == 3
    assert FILE.is_file()


# --- chance


def noisy(rng, effect, n):
    """One dilemma per item, ratios of the plain model and of a condition that moves items by noise and an effect."""
    items = Items.of(ONE * n, Asking(template="{action}").rows(ONE * n))
    plain = rng.normal(size=4 * n)
    return change(items, plain + rng.normal(effect, 1.0, size=4 * n), plain, "honesty").p


def test_null_conditions_give_uniform_p_and_planted_ones_are_found():
    from scipy.stats import kstest

    rng = np.random.default_rng(0)
    null = [noisy(rng, 0.0, 3) for _ in range(150)]
    assert kstest(null, "uniform").pvalue > 0.01
    power = np.mean([noisy(rng, 0.5, 16) < 0.05 for _ in range(30)])
    assert power > 0.9  # d = .5 with n = 64
