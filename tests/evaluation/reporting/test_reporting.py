"""Figures in pages, tables and cards are the study's own; examples follow their rule; pages load nothing."""

import csv
import io
import json
import re

import numpy as np
import pytest

from evaluation.test_transfer import planted, study, vectors
from trimtab.directions import ConceptVectors, Direction
from trimtab.errors import InputError
from trimtab.evaluation.calibration import Found, Search
from trimtab.evaluation.calibration_page import About as CalibrationAbout
from trimtab.evaluation.calibration_page import report as calibration_report
from trimtab.evaluation.readout.matrix import Entry, Matrix, Verdict
from trimtab.evaluation.readout.page import About as ReadoutAbout
from trimtab.evaluation.readout.page import report as readout_report
from trimtab.evaluation.reporting import card
from trimtab.evaluation.reporting.charts import Mark, dose_curve
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.reporting.ship import Ship, ship_of
from trimtab.evaluation.reporting.triplets import chosen
from trimtab.evaluation.rollouts.grid import Condition
from trimtab.evaluation.rollouts.page import About as RolloutAbout
from trimtab.evaluation.rollouts.page import report as rollout_report
from trimtab.evaluation.rollouts.page import triplets, words_changed
from trimtab.evaluation.rollouts.summary import summarise
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.transfer.page import Method, Run, board_report, report
from trimtab.records import finite
from trimtab.safe_range import total_range, with_safe_range
from trimtab.sites import Site


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


def alone(page):
    """No address, no file, no script: everything is inside."""
    assert not re.search(r"(https?:)?//[a-z]|<link|<script|<img|@import|url\(|src=", page), "loads something"
    assert page.startswith("<!doctype html>") and "prefers-color-scheme: dark" in page
    return page


# --- tables


TABLE = Paper(
    "t", "A table",
    (Column("name", "name", kind="text"), Column("x", "x (nats)", "+.2f", "estimate"),
     Column("span", "from", ".1f", "range"), Column("share", "share", ".0%"), Column("n", "n")),
    ({"name": "a|b, c", "x": Estimate(1 / 3, -0.123456789, 0.7, 9), "span": (-1.25, 2.0), "share": 0.5, "n": 9},
     {"name": "none", "x": None, "share": float("nan"), "n": 0}),
    ("n items.",),
)  # fmt: skip


def test_csv_gives_back_the_same_numbers():
    one, two = parsed(TABLE.csv())
    assert (float(one["x"]), float(one["x_low"]), float(one["x_high"])) == (1 / 3, -0.123456789, 0.7)
    assert (float(one["span_low"]), float(one["span_high"]), one["name"]) == (-1.25, 2.0, "a|b, c")
    assert (two["x"], two["x_low"], two["share"], two["n"]) == ("", "", "", "0")


def test_markdown_rounds_and_keeps_its_columns():
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "## A table" and lines[2] == "| name | x (nats) | from | share | n |"
    assert lines[4] == "| a\\|b, c | +0.33 [−0.12, +0.70] | −1.2 to 2.0 | 50% | 9 |"
    assert lines[5] == "| none | – | – | – | 0 |" and lines[-1] == "n items."
    with pytest.raises(InputError, match="no column y"):
        Paper("t", "t", TABLE.columns, ({"y": 1},))


# --- the rule of examples


def test_examples_stand_at_the_quantiles():
    effects = np.array([9.0, 1.0, 5.0, 3.0, 7.0])
    assert chosen(effects, list("abcde")) == [(0.25, 3), (0.5, 2), (0.75, 4)]
    # Equal effects go by name: a, b, c; ranks ⌊.5 + ½⌋ = 1, 1, 2.
    assert chosen([1.0, 1.0, 1.0], ["c", "a", "b"]) == [(0.25, 2), (0.75, 0)]
    assert chosen([np.nan, 2.0], ["a", "b"]) == [(0.25, 1)] and chosen([], []) == []


# --- the safe range


def test_shares_of_a_range_add_up_over_layers():
    assert total_range([(-0.5, 0.8)], [1.0]) == (-0.5, 0.8)
    # Half of the dose at each of two layers: .5 d / .4 + .5 d / .8 = 1.
    assert total_range([(-0.5, 0.4), (-0.5, 0.8)], [0.5, 0.5]) == pytest.approx(
        (-0.5, 1 / (0.5 / 0.4 + 0.5 / 0.8))
    )
    assert total_range([(0.0, 0.4)], [2.0]) == (0.0, pytest.approx(0.2))


def calibrated(norm=2.0, typical=4.0):
    v = ConceptVectors.from_directions(
        [Direction("joy", Site(n), np.eye(4)[0], norm=norm, typical_norm=typical) for n in (1, 2)]
    )
    entry = {"low": -0.5, "high": 0.8, "limit": "kl_p95", "value": 1.0, "prompts": 12}
    calibration = with_safe_range(v.calibration, "joy", "layer_1", "add", entry)
    return ConceptVectors(**{**vars(v), "calibration": calibration})


def test_a_vector_s_range_in_both_units():
    found = ship_of(calibrated(), "joy", [Site(1)])
    assert (found.low, found.high) == (
        -0.5,
        0.8,
    ) and found.said == "−0.5 to +0.8 (calibrated: kl_p95 at most 1, 12 prompts)"
    scale = ship_of(calibrated(), "joy", [Site(1)], "scale")
    assert (scale.low, scale.high) == (-1.0, 1.6)  # scale 1 is dose ½
    assert ship_of(calibrated(), "joy", [Site(1), Site(2)]) is None  # layer 2 was never calibrated


def test_what_lies_beyond_a_range_is_said_once():
    ship = Ship(-0.5, 0.8, "calibrated")
    assert ship.beyond("joy", "dose", [0.4, -0.4, 0.8, -0.5]) is None
    said = ship.beyond("joy", "dose", [0.4, -0.4, 1.0, -1.0])
    assert said == "joy: doses −1, +1 lie beyond its safe range, −0.5 to +0.8 (calibrated)"
    assert "dose −0.6 lies beyond" in ship.beyond("joy", "dose", [-0.6, 0.6])


def test_the_shaded_range_is_cut_off_where_nothing_was_measured():
    marks = [Mark(d, d, d - 1, d + 1, True, "") for d in (-1.0, 0.0, 1.0)]
    inside = dose_curve("x", marks, ship=Ship(-0.5, 0.5, "calibrated"))
    assert inside.count('class="shore"') == 2 and "−0.5 to +0.5" in inside
    wide = dose_curve("x", marks, ship=Ship(-5, 0.5, "calibrated"))
    assert wide.count('class="shore"') == 1
    left, width = (float(re.search(rf'class="ship"[^>]* {k}="([\d.]+)"', wide)[1]) for k in ("x", "width"))
    whole = float(
        re.search(r'class="ship"[^>]* width="([\d.]+)"', dose_curve("x", marks, ship=Ship(-5, 5, "")))[1]
    )
    assert width == pytest.approx(0.75 * whole, abs=0.2) and left > 0
    assert "ship" not in dose_curve("x", marks)


# --- transfer


@pytest.fixture(scope="module")
def done():
    """Honesty moves by .75 nats per dose; random directions and a prompt stand beside it."""
    engine = planted({"honesty"}, reply=lambda text, moved: "Yes." if moved[0] > 0 else "No")
    found, *_ = study(
        engine, {"honest": vectors(0)}, min_items=10, random=5, free=4, prompts={"Be honest.": "x"}
    )
    return found


@pytest.fixture(scope="module")
def transfer(done):
    ship = Ship(-0.9, 0.4, "calibrated: kl_p95 at most 1, 12 prompts")
    run = Run("planted", "r1", "dose", "trimtab eval dilemmas planted --steer v")
    return report(done, run, {"honest": Method("v", "0123456789abcdef00", "mean_diff", "layer 1 of 2", ship)})


def test_a_transfer_page_has_what_the_json_has(done, transfer):
    record = json.loads(json.dumps(finite(done.to_json())))
    (opening,) = record["openings"]
    alone(transfer.page)
    (main,) = parsed(transfer.tables[0].csv())
    for key, side in (("plus", "plus"), ("minus", "minus")):
        target = opening["row"][side]["change"]["target"]
        assert [float(main[key + end]) for end in ("", "_low", "_high")] == [
            target[k] for k in ("mean", "low", "high")
        ]
        assert f"{target['mean']:+.2f} [".replace("-", "−") in transfer.page
    assert float(main["strength"]) == opening["strength"] == 1.0 and int(main["n"]) == record["n"] == 18
    assert float(main["cut_plus"]) == opening["row"]["plus"]["cut"] and float(main["slope"]) == pytest.approx(
        0.75
    )
    assert (float(main["safe_low"]), float(main["safe_high"])) == (-0.9, 0.4)
    conditions = parsed(transfer.tables[1].csv())
    assert [c["side"] for c in conditions] == [
        "honest +0.5",
        "honest -0.5",
        "honest +1",
        "honest -1",
        "prompt: Be honest.",
    ]
    assert [c["safe"] for c in conditions] == ["beyond", "inside", "beyond", "beyond", ""]
    board = {t.name: t for t in transfer.tables}["leaderboard"]
    ranked = parsed(board.csv())
    by_name = {r["condition"]: r for r in record["leaderboard"]["rows"]}
    for row in ranked:
        assert float(row["forced"]) == by_name[row["condition"]]["forced"]
        assert int(row["rank_forced"]) == by_name[row["condition"]]["ranks"]["forced"]
        assert float(row["length"]) == by_name[row["condition"]]["length"] is not None
    assert record["tried"] == 4 and "<b>4</b>" in transfer.page


def test_every_value_and_slope_is_drawn(done, transfer):
    (opening,) = done.openings
    assert opening.values[0].value == "honesty" and len(opening.values) == 4
    assert opening.values[0].plus.mean == pytest.approx(0.75) and opening.values[
        1
    ].plus.mean == pytest.approx(0)
    assert opening.values[0].null[0] < 0 < opening.values[0].null[1]
    assert len(opening.slopes.each) == 18 and transfer.page.count('class="along"') == 18
    assert transfer.page.count('class="up"') == 4 and 'class="ship"' in transfer.page


def test_examples_of_dilemmas_follow_the_rule(done, transfer):
    (opening,) = done.openings
    for t in opening.triplets:
        assert (
            t.of == 18
            and t.effect == pytest.approx(1.5)
            and t.effect == pytest.approx(t.plus.score - t.minus.score)
        )
        assert t.item.startswith("honesty-") and (t.minus.text, t.plus.text) == ("No", "Yes.")
    # Equal effects (up to rounding) are told apart; the three are distinct, and all stand in the page.
    assert len({t.item for t in opening.triplets}) == len(opening.triplets) == 3
    assert all(t.prompt.splitlines()[0] in transfer.page for t in opening.triplets)


def test_the_card_says_all_that_a_reader_needs(transfer):
    for words in ("**Vector:** `v`", "`planted` at revision `r1`", "**Method:** mean_diff", "**Layer:** layer 1 of 2",
                  "±1, the largest", "beyond the calibrated safe range", "−0.9 to +0.4", "honesty +0.75", "(n = 18",
                  "**Random directions of the same norm:**", "**Coherence:**",
                  "$ trimtab eval dilemmas planted --steer v"):  # fmt: skip
        assert words in transfer.card, words
    assert not transfer.card.startswith("---")


def test_files_of_a_report(transfer, tmp_path):
    written = transfer.write(tmp_path / "run")
    assert {p.rpartition("/")[2] for p in written} == {
        "report.html", "table.md", "table.csv", "table-conditions.csv", "table-leaderboard.csv", "table-values.csv",
        "card.md",
    }  # fmt: skip
    assert (tmp_path / "run" / "table.csv").read_text() == transfer.tables[0].csv()


def test_the_leaderboard_alone(done):
    found = board_report(done.board, "honesty", "trimtab eval leaderboard a.json")
    assert "trimtab eval leaderboard a.json" in alone(found.page) and not found.card
    assert len(parsed(found.tables[0].csv())) == len(done.board.standings)


# --- the other runs


def test_a_calibration_page():
    v = calibrated()
    wanted = [Search(v, Site(1), "add", sign) for sign in (1, -1)]
    curve = ((0.01, 0.0), (0.4, 0.3), (0.8, 0.9), (4.0, 50.0))
    found = [Found(0.8, 0.9, 0.3, True, True, curve), Found(0.4, 0.7, 0.2, True, False, curve)]
    about = CalibrationAbout(
        "m", "kl_p95", 1.0, "nats", {"prompts": 12, "positions": "all", "revision": "r"}, "cmd"
    )
    made = calibration_report(wanted, found, [], about)
    alone(made.page)
    (row,) = parsed(made.tables[0].csv())
    assert (float(row["low"]), float(row["high"]), row["monotone"]) == (-0.4, 0.8, "no")
    assert [float(p["cost"]) for p in parsed(made.tables[1].csv())] == [c for _, c in curve] * 2
    assert "−0.4 to +0.8" in made.card and made.page.count("dot hollow") == 1  # 50 nats lie above the picture


def test_a_readout_page():
    def entry(train, unseen, layer, auc, own=False):
        controls = {"length": 0.5, "sentiment": 0.55, "topic": 0.6}
        return Entry(train, unseen, Site(layer), auc, auc - 0.1, auc + 0.05, 0.62, controls, 20, own)

    pairs = [("a", "a", True), ("a", "b", False), ("b", "a", False), ("b", "b", True)]
    entries = tuple(entry(t, u, n, 0.9 if u == "a" else 0.61, own) for t, u, own in pairs for n in (1, 2))
    found = Matrix(entries, (Verdict("a", Site(1), False, ("b",)), Verdict("b", Site(2), True, ())))
    made = readout_report(found, ReadoutAbout("m", None, "mean_diff", "cmd"))
    alone(made.page)
    assert "no readout: it does not hold on b" in made.page and made.page.count('class="heat') == 8 + 8
    rows = parsed(made.tables[1].csv())
    assert [float(r["auc"]) for r in rows] == [e.auc for e in entries] and rows[2][
        "verdict"
    ] == "does not hold"
    assert "**AUC on b:** 0.610 [0.510, 0.660] (n = 20 groups)" in made.card


def replies():
    texts = {"plain": "a b c d", "joy +1": "a b c d", "joy +2": "a b x y", "joy -2": "p q r s"}
    scales = {"plain": 0.0, "joy +1": 1.0, "joy +2": 2.0, "joy -2": -2.0}
    return [
        {"item": f"q{i}", "question": f"why {i}?", "condition": c, "scale": scales[c], "tokens": 4 + i,
         "finish": "length" if i else "stop", "answer": "a b c d" if c == "joy +2" and i == 0 else text}
        for i in range(3)
        for c, text in texts.items()
    ]  # fmt: skip


CONDITIONS = [Condition("plain")] + [Condition(f"joy {s:+g}", "joy", s) for s in (1.0, 2.0, -2.0)]


def test_rollouts_examples_are_ordered_by_what_changed():
    assert words_changed("A b, c", "a B c!") == 0 and words_changed("a b", "b c") == pytest.approx(2 / 3)
    assert words_changed("", "") == 0 and words_changed("a", "") == 1
    found = triplets(replies(), CONDITIONS)
    # q0 changes by (0 + 1) ÷ 2, q1 and q2 by (⅔ + 1) ÷ 2; of three the ranks are 1, 1 and 2.
    assert [(t.item, t.quantile) for t in found] == [("q1", 0.25), ("q2", 0.75)]
    assert (
        found[0].effect == pytest.approx(5 / 6)
        and found[0].minus.strength == -2
        and found[0].plus.strength == 2
    )
    assert triplets(replies(), CONDITIONS[1:]) == ()


def test_a_rollout_page():
    rows = replies()
    summaries = summarise(rows, "condition")
    made = rollout_report(
        rows, CONDITIONS, summaries, RolloutAbout("m", "r", "cmd", ships={"joy": Ship(-1, 1, "c")})
    )
    alone(made.page)
    table = parsed(made.tables[0].csv())
    assert [float(r["tokens"]) for r in table] == [s.tokens.mean for s in summaries] == [5.0] * 4
    assert [float(r["cut"]) for r in table] == pytest.approx([2 / 3] * 4) and made.page.count(
        'class="ship"'
    ) >= 3
    assert "scale −1 to +1" in made.card and "none were run" in made.card


def test_cards_name_what_is_missing():
    assert card.model_words("m", None) == "`m`, no revision known"
    text = card.markdown([card.Card("T", (("a", "b"), ("empty", "")))], "trimtab x")
    assert text == "## T\n\n- **a:** b\n\nReproduce:\n\n```console\n$ trimtab x\n```\n"
