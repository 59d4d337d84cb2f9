"""Parts of the demo on toy inputs: strips, segments, conditions, staging, and the shipped texts."""

import json

import made_up
import numpy as np
import pytest

from trimtab import embedded
from trimtab.demo.materials import Materials, Story
from trimtab.demo.readings import Strip, pieces_of, segment_means, truth_of
from trimtab.demo.run import _staged
from trimtab.demo.sampling import Condition, _parts, sampling
from trimtab.demo.settings import NEUTRAL, DemoSettings
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.requests import Request, Sampling
from trimtab.errors import FormatError, InputError
from trimtab.evaluation.baselines import random_like
from trimtab.evaluation.coherence import words
from trimtab.prompts import Prompt
from trimtab.sites import Site

SETTINGS = DemoSettings()


class Words:
    """Decodes token i to the i-th word; token 0 is special."""

    words = ("", "Ann", " slept", ".", " Then", " she", " sang", ".")

    def decode(self, tokens, special=False):
        return "".join(self.words[t] for t in tokens)


def test_pieces_join_to_the_text():
    prompt = Prompt(tuple(range(8)))
    pieces = pieces_of(Words(), prompt)
    assert pieces == list(Words.words) and "".join(pieces) == "Ann slept. Then she sang."


def test_truth_follows_character_ranges():
    text = "Ann slept. Then she sang."
    story = Story(text, "happy", (("calm", 0, 10), ("happy", 10, 25)))
    assert truth_of(story, Words.words[1:]) == ("calm",) * 3 + ("happy",) * 4


def test_segments_average_their_own_tokens_without_the_sink():
    rows = np.array([[100.0], [1.0], [3.0], [5.0], [7.0]])
    means, names = segment_means([rows], [("calm", "calm", "calm", "sad", "sad")])
    assert names.tolist() == ["calm", "sad"] and means.tolist() == [[2.0], [6.0]]


def test_sentences_of_a_strip():
    strip = Strip(Words.words[1:], np.zeros((7, 1)))
    assert strip.sentences == [(0, 3), (3, 7)]
    assert Strip(("no", " end"), np.zeros((2, 1))).sentences == [(0, 2)]


def test_persona_stands_in_front_and_seeds_ignore_the_condition():
    chat = ({"role": "user", "content": "Hi"},)
    told = Condition("p", system="You feel calm.").messages(chat)
    assert told[0] == {"role": "system", "content": "You feel calm."} and told[1:] == chat
    assert Condition("plain").messages(chat) == chat
    seeds = [sampling(SETTINGS, item, n).seed for item in range(3) for n in (1, 3)]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3


def test_parts_hold_at_most_the_rows_asked_for():
    requests = [Request("x", None, Sampling(n=3)) for _ in range(5)]
    assert [len(p) for p in _parts(requests, 7)] == [2, 2, 1]
    assert [r for part in _parts(requests, 1) for r in part] == requests  # one request is never split


def test_random_directions_are_unit_independent_of_count_and_equally_long():
    made = [Direction.from_raw("a", Site(n), np.ones(64) * n, typical_norm=float(n)) for n in (1, 2)]
    vectors = ConceptVectors.from_directions(made)
    five, six = random_like(vectors, 5), random_like(vectors, 6)
    for site, table in five.tables.items():
        assert np.allclose(np.linalg.norm(table.vectors, axis=1), 1)
        assert np.array_equal(table.vectors, six.tables[site].vectors[:5])
        assert np.abs(table.vectors @ table.vectors.T - np.eye(5)).max() < 0.6
    assert five.typical_norms == vectors.typical_norms
    assert not np.array_equal(*(t.vectors for t in five.tables.values()))
    assert not np.array_equal(
        random_like(vectors, 5, seed=1).tables[Site(1)].vectors, five.tables[Site(1)].vectors
    )
    with pytest.raises(InputError, match="at least one"):
        random_like(vectors, 0)


def test_staging_moves_all_or_nothing(tmp_path):
    target = tmp_path / "runs" / "demo"
    with pytest.raises(KeyboardInterrupt), _staged(target) as stage:
        (stage / "half.txt").write_text("x")
        raise KeyboardInterrupt
    assert list(target.parent.iterdir()) == []
    with _staged(target) as stage:
        (stage / "whole.txt").write_text("x")
    assert [p.name for p in target.iterdir()] == ["whole.txt"]
    assert [p.name for p in target.parent.iterdir()] == ["demo"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="-o"), _staged(tmp_path / "file" / "demo"):
        pass


def test_best_and_rise_of_a_curve():
    curve = made_up.curve("happy", 0.75)
    assert curve.best.dose == 1.0 and curve.rise[-1].dose == 1.0 and len(curve.rise) >= 4
    assert curve.null(1.0) < 0.3


# --- the shipped texts ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder():
    path = embedded.MODEL.parent / "data"
    if not (path / "pairs.jsonl").exists():
        pytest.skip("the embedded data are not in this checkout: make them with `python -m embedded.export`")
    return path


def test_materials_are_what_the_demo_needs(folder):
    m = Materials.read(folder, SETTINGS)
    assert len(m.evaluate) == SETTINGS.prompts >= 32 and SETTINGS.samples >= 3
    assert SETTINGS.random_directions >= 5
    labels = {label for _, label in m.labelled}
    assert labels == {*SETTINGS.emotions, NEUTRAL}
    assert 0.4 < np.mean([d.honest == "Yes" for d in m.held_out]) < 0.6
    assert all(s.text[a:b] for s in m.stories for _, a, b in s.segments)


def test_what_is_scored_was_used_for_nothing_else(folder):
    m = Materials.read(folder, SETTINGS)
    scored = {json.dumps(p) for p in m.evaluate}
    asked = {p[-1]["content"] for p in m.evaluate}
    extracted = {
        message["content"]
        for c in (*m.feelings, m.honesty)
        for item in (*c.positive, *c.negative)
        for message in item
    }
    assert not scored & {json.dumps(p) for p in m.select}
    assert not asked & extracted
    assert not asked & {text for text, _ in m.labelled}
    assert not {d.question for d in m.train} & {d.question for d in m.held_out}
    named = [q for q in asked if set(words(q)) & set(SETTINGS.emotions)]
    assert named == []


def test_missing_texts_are_named(folder, tmp_path):
    with pytest.raises(FormatError, match="select prompts"):
        Materials.read(folder, DemoSettings(select_prompts=10_000))
