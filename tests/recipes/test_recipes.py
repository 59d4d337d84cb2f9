"""`extract` joins data, engine and method; on the reference model the right answer is known."""

import json
import warnings

import numpy as np
import pytest

import trimtab
from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_hash, neutral_texts
from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine
from trimtab.errors import InputError, UnknownName, Unsupported
from trimtab.extraction import METHODS, method_class
from trimtab.extraction.method import ExtractionWarning
from trimtab.recipes import choose_method, extract, typical_norms
from trimtab.recipes.reading import ReadingWarning
from trimtab.sites import Site

SUBJECTS, VERBS = ("I", "you", "we", "they"), ("feel", "seem", "look")


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture(autouse=True)
def few_neutral_texts(monkeypatch):
    """Three neutral texts instead of all: the reference model spells them byte by byte."""
    monkeypatch.setattr("trimtab.recipes.neutral.neutral_texts", lambda: NEUTRAL)


NEUTRAL = neutral_texts()[:3]


def texts(*words, end="."):
    return tuple(f"{s} {v} really {w} today{end}" for s in SUBJECTS for v in VERBS for w in words)


def joy(**changes):
    given = {"positive": texts("happy", "glad"), "negative": texts("sad", "gloomy"), "paired": True}
    return Contrast("joy", **{**given, **changes})


def anger():
    return Contrast("anger", texts("angry", "mad"), texts("ready", "tall"), paired=True)


def answers(*words):
    return tuple(
        ({"role": "user", "content": f"How are {s}?"}, {"role": "assistant", "content": f"{s} {v} {w}{end}"})
        for s in SUBJECTS
        for v, end in zip(VERBS, (".", "!", ""))
        for w in words
    )


def test_a_planted_concept_is_found_at_every_layer(engine):
    found = extract(engine, [joy(), anger()])
    assert found.concepts == ("joy", "anger")
    assert found.sites == tuple(Site(n) for n in range(engine.info.n_layers))
    for site in found.sites:
        for row, name in enumerate(found.concepts):
            assert found.tables[site].vectors[row] @ engine.planted[name] > 0.9


def test_the_raw_vector_is_the_difference_of_means(engine):
    contrast = joy(paired=False)
    found = extract(engine, contrast, layers=2)
    prompts = [[engine.encode(t, bare=True) for t in side] for side in (contrast.positive, contrast.negative)]
    means = [
        np.mean([engine.capture(p, [2])[0][2][1:].mean(0) for p in side], axis=0, dtype=np.float64)
        for side in prompts
    ]
    assert np.allclose(found.direction("joy", Site(2)).raw, means[0] - means[1], atol=1e-5)


def test_typical_norms_are_those_of_bare_neutral_tokens(engine):
    found = extract(engine, joy(), layers="1")
    states = np.concatenate([engine.capture(engine.encode(t, bare=True), [1])[0][1][1:] for t in NEUTRAL])
    assert found.typical_norms[Site(1)] == pytest.approx(np.median(np.linalg.norm(states, axis=1)), rel=1e-5)
    assert typical_norms(engine, [1]) == {Site(1): pytest.approx(found.typical_norms[Site(1)])}
    assert set(typical_norms(engine)) == {Site(n) for n in range(4)}


def test_small_rounds_measure_the_same(engine, monkeypatch):
    whole = typical_norms(engine, [0, 3])
    monkeypatch.setattr("trimtab.recipes.neutral.ROUND_NUMBERS", 1)
    assert typical_norms(engine, [0, 3]) == whole


def test_neutral_texts_that_do_not_fit_are_left_out_and_counted():
    lengths = sorted(len(load_engine("tiny", "reference").encode(t, bare=True)) for t in NEUTRAL)
    short = load_engine("tiny", "reference", context_length=lengths[1])
    with pytest.warns(ReadingWarning, match="measured on bare texts"):
        found = extract(short, joy(), layers=0)
    assert found.origin.parameters["typical_norms_of"].endswith("(2 texts)")
    with pytest.raises(InputError, match="no neutral text fits the context"):
        typical_norms(load_engine("tiny", "reference", context_length=lengths[0] - 1))


def test_the_origin_tells_the_whole_story(engine):
    origin = extract(engine, [joy(), anger()], "pca_diff_uncentered", layers=-1).origin
    assert (origin.model, origin.revision, origin.n_layers) == ("tiny", "1", 4)
    assert (origin.method, origin.pooling, origin.sign_source) == ("pca_diff_uncentered", "mean_all", "pairs")
    assert origin.neutral_hash == neutral_hash() and origin.data_hash and origin.template_hash is None
    assert origin.counts["joy/positive"] == origin.counts["joy/negative"] == 24
    assert "neutral texts" in origin.parameters["typical_norms_of"]
    assert origin.parameters["mean_std_of"].endswith("(3 replies)") and origin.read_alignment == "emit"
    assert origin.parameters["pair_accuracy"]["joy"]["layer_3"] == 1.0
    json.dumps(dict(origin.parameters))


@pytest.mark.filterwarnings("ignore::trimtab.extraction.method.ExtractionWarning")
@pytest.mark.parametrize("method", [m for m in sorted(METHODS) if "gradients" not in method_class(m).needs])
def test_every_method_runs_twice_to_the_same_bits_and_survives_a_file(engine, method, tmp_path):
    judged = joy(scores=(90.0,) * len(joy().positive), negative_scores=(10.0,) * len(joy().negative))
    chosen = choose_method(method, 3, ["min_count=20"] if method == "role_difference" else [])
    first, second = (extract(engine, judged, chosen, layers="0,50%", seed=3) for _ in range(2))
    assert first.hash == second.hash and first.sites == (Site(0), Site(2))
    first.save(tmp_path / "joy.safetensors")
    back = ConceptVectors.load(tmp_path / "joy.safetensors", model=engine.info)
    assert back.hash == first.hash and back.origin == first.origin


@pytest.mark.parametrize("method", [m for m in sorted(METHODS) if "gradients" in method_class(m).needs])
def test_an_engine_that_does_not_differentiate_says_so_before_running(engine, method):
    with pytest.raises(Unsupported, match="transformers"):
        extract(engine, joy(), method)


def test_the_seed_moves_the_random_baseline_only(engine):
    draws = [extract(engine, joy(), "random", layers=1, seed=s).hash for s in (0, 1)]
    means = [extract(engine, joy(), "mean_diff", layers=1, seed=s).hash for s in (0, 1)]
    assert draws[0] != draws[1] and means[0] == means[1]


def test_other_streams_and_a_path(engine, tmp_path):
    path = tmp_path / "joy.jsonl"
    rows = zip(joy().positive, joy().negative, strict=True)
    path.write_text("".join(json.dumps({"positive": p, "negative": n}) + "\n" for p, n in rows))
    found = trimtab.extract(engine, path, layers=[1, 2], streams=("mlp_out", "resid_post"))
    assert set(found.sites) == {Site(n, s) for n in (1, 2) for s in ("mlp_out", "resid_post")}
    assert found.concepts == ("joy",) and set(found.typical_norms) == set(found.sites)


def test_the_extracted_vector_steers(engine):
    engine.library["joy"] = extract(engine, joy())
    plan = trimtab.SteeringPlan.add("joy", dose=1.0)
    prompt = "I feel really"
    score = trimtab.engines.requests.ScoreRequest
    plain, up = (
        engine.score(score(engine.encode(prompt, bare=True), " happy", p))[0].total for p in (None, plan)
    )
    assert up > plain + 0.2


def test_progress_counts_distinct_texts(engine):
    seen = []
    extract(engine, joy(), layers=0, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (48, 48)


# --- refusals


def test_bad_requests(engine):
    with pytest.raises(InputError, match="nothing to extract"):
        extract(engine, [])
    with pytest.raises(InputError, match="distinct"):
        extract(engine, [joy(), joy()])
    with pytest.raises(UnknownName, match="mean_diff"):
        extract(engine, joy(), "means")
    with pytest.raises(UnknownName, match="unknown stream 'resid'"):
        extract(engine, joy(), streams=("resid",))
    with pytest.raises(UnknownName, match="unknown pooling"):
        extract(engine, joy(), pooling="first")
    with pytest.raises(InputError, match="bare texts: use mean_all"):
        extract(engine, joy(), pooling="mean_assistant")
    with pytest.raises(InputError, match="layer 9 does not exist"):
        extract(engine, joy(), layers=9)
    with pytest.raises(InputError, match=r"needs pairs.*mean_diff"):
        extract(engine, joy(paired=False), "pca_diff")


def test_a_stream_that_the_model_lacks(engine, monkeypatch):
    widths = {s: w for s, w in engine.info.widths.items() if s != Site(1, "q")}
    monkeypatch.setattr(engine, "info", trimtab.ModelInfo("odd", 4, 32, widths))
    assert {s.layer for s in extract(engine, joy(), streams=("q",)).sites} == {0, 2, 3}
    with pytest.raises(Unsupported, match="'q' cannot be reached at layer 1"):
        extract(engine, joy(), layers=1, streams=("q",))


def test_a_text_longer_than_the_context_is_never_truncated():
    small = load_engine("tiny", "reference", context_length=40)
    long = joy(positive=("I feel happy. " * 20, *joy().positive[1:]))
    with pytest.raises(InputError, match=r"positive text 1 of 'joy' has \d+ tokens.*context"):
        extract(small, long)


def test_nan_activations_are_refused(engine, monkeypatch):
    real = engine._capture

    def spoilt(items, sites, at):
        found = real(items, sites, at)
        return [{s: v * np.nan for s, v in one.items()} for one in found]

    monkeypatch.setattr(engine, "_capture", spoilt)
    with pytest.raises(InputError, match="layer_0 hold NaN"):
        extract(engine, joy())
    with pytest.raises(InputError, match="layer_1 on neutral text"):
        typical_norms(engine, [1])


@pytest.mark.parametrize("pooling", ["last", "prompt_last", "last_2"])
def test_trap_the_end_of_turn_marker_is_refused(engine, pooling):
    contrast = Contrast("joy", answers("happy"), answers("sad"), paired=True)
    with pytest.raises(InputError, match=r"'joy'.*last_content or mean_assistant"):
        extract(engine, contrast, pooling=pooling)


@pytest.mark.parametrize("pooling", [None, "mean_assistant", "last_content"])
def test_answers_can_be_read_where_they_stand(engine, pooling):
    contrast = Contrast("joy", answers("happy"), answers("sad"), paired=True)
    found = extract(engine, contrast, layers=3, pooling=pooling)
    assert found.direction("joy", Site(3)).unit @ engine.planted["joy"] > 0.8
    assert found.origin.template_hash == engine.info.template_hash
    assert found.origin.pooling == (pooling or "mean_assistant")


def test_a_shared_full_stop_only_warns(engine):
    with pytest.warns(ReadingWarning, match="same token"):
        found = extract(engine, joy(), layers=3, pooling="last")
    assert found.direction("joy", Site(3)).unit @ engine.planted["joy"] > 0.8


def test_prompt_last_only_warns(engine):
    ask = [tuple(({"role": "user", "content": t},) for t in texts(w)) for w in ("happy", "sad")]
    contrast = Contrast("joy", *ask, paired=True)
    assert contrast.read_pooling == "prompt_last"
    with pytest.warns(ReadingWarning, match="prompt_last"):
        assert extract(engine, contrast, layers=3).concepts == ("joy",)


@pytest.mark.parametrize("method", ["mean_diff", "pca_diff_uncentered"])
def test_identical_activations_are_refused_with_site_and_concept(engine, method):
    """What enters block 0 knows nothing but its own token: with one shared token there is nothing to read."""
    with (
        pytest.warns(ReadingWarning),
        pytest.raises(InputError, match=r"'joy' at layer_0\.resid_pre are identical.*last_content"),
    ):
        extract(engine, joy(), method, layers=0, streams=("resid_pre",), pooling="last")


def test_messages_need_a_chat_template(engine, monkeypatch):
    info = engine.info
    monkeypatch.setattr(engine, "info", trimtab.ModelInfo("base", 4, 32, info.widths))
    with pytest.raises(InputError, match="base has no chat template"):
        extract(engine, Contrast("joy", answers("happy"), answers("sad")))


def test_one_warning_for_all_layers(engine):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        extract(engine, joy(), "pca_diff")
    centring, votes = sorted((str(x.message) for x in w if x.category is ExtractionWarning), key=len)[::-1]
    assert "mean_diff or pca_diff_uncentered" in centring and centring.endswith(
        "('joy' at layer_0 and 3 more)"
    )
    assert "hardly agree on its sign" in votes and votes.endswith("('joy' at layer_0 and 3 more)")


def test_bare_texts_on_a_chat_model_are_meant(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(load_engine("tiny", "reference"), joy(), layers=1)
