"""Rollouts: grids, whose norm a scale multiplies, seeds that do not depend on the condition, comparisons by item."""

import json

import numpy as np
import pytest

from evaluation.planted_answers import PlantedEngine, direction
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.engines.requests import Sampling
from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.rollouts.compare import by_condition, cosines, differences
from trimtab.evaluation.rollouts.grid import conditions, match_norm, parse_scales
from trimtab.evaluation.rollouts.questions import load_questions
from trimtab.evaluation.rollouts.run import Asking, grid, replies
from trimtab.evaluation.rollouts.summary import cut_warning, summarise
from trimtab.sites import Site


def vector(axis, norm):
    return ConceptVectors.from_directions([direction(axis, norm=norm, typical_norm=10.0)])


VECTORS = {"a": vector(0, 2.0), "b": vector(1, 5.0)}


def test_grids_of_all_and_of_one():
    assert parse_scales(["0,1,2"], ["a", "b"]) == {"a": (0, 1, 2), "b": (0, 1, 2)}
    assert parse_scales(["0,1", "b=4,-4"], ["a", "b"]) == {"a": (0, 1), "b": (4, -4)}
    with pytest.raises(InputError, match="no scales for b"):
        parse_scales(["a=1"], ["a", "b"])
    with pytest.raises(UnknownName, match="'c'"):
        parse_scales(["c=1"], ["a"])
    with pytest.raises(InputError, match="numbers"):
        parse_scales(["one"], ["a"])


@pytest.mark.parametrize(
    ("rule", "pushes"),
    [("learned", [4.0, 10.0]), ("unit", [2.0, 2.0]), ("a", [4.0, 4.0]), ("b", [10.0, 10.0])],
)
def test_whose_norm_a_scale_multiplies(rule, pushes):
    engine = PlantedEngine(lambda text, moved: {"Yes": 0.0, "No": 0.0})
    prompt = engine.encode([{"role": "user", "content": "x"}])
    found = conditions(VECTORS, {"a": (0.0, 2.0), "b": (2.0,)}, rule, layers=[1])
    assert [c.name for c in found] == ["plain", "a +2", "b +2"]
    moved = [np.linalg.norm(engine.moved(engine.resolve(c.plan, prompt), 0)) for c in found[1:]]
    assert moved == pytest.approx(pushes)


def test_norms_of_nobody():
    with pytest.raises(UnknownName, match="learned"):
        match_norm(VECTORS, "c")
    other = ConceptVectors.from_directions([Direction("z", Site(0), np.eye(4)[0])])
    with pytest.raises(InputError, match="share no layer"):
        match_norm({**VECTORS, "z": other}, "a")


def test_questions(tmp_path):
    text = tmp_path / "q.txt"
    text.write_text("one?\n\n two? \none?\n")
    assert [q.text for q in load_questions(text)] == ["one?", "two?"]
    rows = tmp_path / "q.jsonl"
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "three?"}]
    rows.write_text(json.dumps({"id": 7, "question": "one?"}) + "\n" + json.dumps({"messages": chat}) + "\n")
    found = load_questions(rows)
    assert found[0].id == "7" and found[1].text == "three?" and found[1].messages[0]["role"] == "system"
    rows.write_text('{"answer": "x"}\n')
    with pytest.raises(InputError, match="line 1 needs"):
        load_questions(rows)
    rows.write_text('{"messages": [{"role": "assistant", "content": "x"}]}\n')
    with pytest.raises(InputError, match="the user's"):
        load_questions(rows)


def test_replies_do_not_depend_on_their_batch_and_share_their_luck(tmp_path):
    engine = load_engine("tiny", "reference")
    text = tmp_path / "q.txt"
    text.write_text("we feel\nthey look\n")
    joy = ConceptVectors.from_directions(
        [Direction("joy", Site(1), engine.planted["joy"], norm=3.0, typical_norm=6.0)]
    )
    todo = grid(load_questions(text), conditions({"joy": joy}, {"joy": (0.0, 1e-9, 4.0)}), samples=3)
    assert len(todo) == 2 * 3 * 3
    sampling = Sampling(max_tokens=6, temperature=1.0, seed=5)
    together = [r for _, r in replies(engine, todo, Asking(sampling))]
    assert together == [r for _, r in replies(engine, todo, Asking(sampling, batch=5))]
    by = {(r["item"], r["condition"], r["rollout"]): r for r in together}
    for (item, condition, k), row in by.items():
        if condition == "joy +1e-09":  # a push of nothing is the plain model with the same luck
            assert (
                row["answer"] == by[item, "plain", k]["answer"]
                and row["seed"] == by[item, "plain", k]["seed"]
            )
    assert any(by[i, "joy +4", k]["answer"] != by[i, "plain", k]["answer"] for i, _, k in by)
    pushed = by[together[0]["item"], "joy +4", 0]
    assert (
        pushed["dose"] == pytest.approx(4 * 3 / 6)
        and pushed["layers"] == [1]
        and pushed["fingerprint"] != "plain"
    )
    assert by[together[0]["item"], "plain", 0]["dose"] is None


def rows(condition, tokens, finish="stop", answer="a b"):
    return [
        {"item": str(i), "condition": condition, "tokens": t, "finish": finish, "answer": answer}
        for i, t in enumerate(tokens)
    ]


def test_summaries_per_condition_and_per_question():
    found = summarise([*rows("plain", [2, 4]), *rows("x", [8, 8], "length", "no no no no")], "condition")
    plain, x = found
    assert (plain.tokens.mean, plain.cut, plain.repeated, plain.distinct_2) == (3.0, 0.0, 0.0, 1.0)
    assert (x.cut, x.repeated, x.distinct_2) == (1.0, 0.75, pytest.approx(1 / 3))
    assert "0% to 100%" in cut_warning(found) and cut_warning(found[:1]) is None
    items = summarise([*rows("plain", [2, 4]), *rows("x", [8, 8])], "item")
    assert [(s.name, s.tokens.mean) for s in items] == [("0", 5.0), ("1", 6.0)]


# --- compare


def test_cosines_closed_form():
    site = Site(1)
    slanted = ConceptVectors.from_directions([Direction.from_raw("c", site, np.array([3.0, 4.0, 0, 0]))])
    found = {(c.one, c.other): c for c in cosines({**VECTORS, "c": slanted})}
    assert found["a", "b"].cosine == 0 and found["a", "b"].norm_ratio == 2.5
    assert found["a", "c"].cosine == pytest.approx(0.6) and found["b", "c"].cosine == pytest.approx(0.8)
    assert found["a", "b"].chance == pytest.approx(1.96 / 2)
    with pytest.raises(InputError, match="two files"):
        cosines({"a": VECTORS["a"]})


def test_concepts_of_one_file_are_compared_with_each_other():
    both = ConceptVectors.from_directions([direction(0), Direction("other", Site(1), np.eye(4)[1])])
    (only,) = cosines({"f": both})
    assert (only.one, only.other, only.cosine) == ("f:axis-0", "f:other", 0.0)


def test_differences_are_paired_and_n_way():
    x = {str(i): float(i) for i in range(6)}
    y = {k: v + 1 for k, v in x.items()}
    z = {k: v + 1 for k, v in list(x.items())[:4]}
    found = {(d.one, d.other): d for d in differences({"x": x, "y": y, "z": z})}
    assert len(found) == 3
    assert found["x", "y"].difference.mean == 1.0 and found["x", "y"].p == pytest.approx(2 / 64)
    assert found["x", "y"].p_holm == pytest.approx(6 / 64)
    assert found["x", "z"].difference.n == 4 and found["x", "z"].only_one == 2
    assert found["y", "z"].difference.mean == 0 and found["y", "z"].p == 1.0
    with pytest.raises(InputError, match="share no item"):
        differences({"x": x, "w": {"q": 1.0}})


def test_values_by_condition():
    table = by_condition(rows("plain", [2, 4]), "tokens")
    assert table == {"plain": {"0": 2.0, "1": 4.0}}
    with pytest.raises(InputError, match="score the answers first"):
        by_condition(rows("plain", [2]), "mark")
    marked = [{"item": "0", "condition": "c", "mark": m} for m in (1.0, 3.0, None)]
    assert by_condition(marked, "mark") == {"c": {"0": 2.0}}
