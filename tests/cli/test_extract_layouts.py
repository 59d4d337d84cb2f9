"""`trimtab extract` on every corpus layout, from the public files to a vector file; and a bad corpus of each kind,
which is refused before the model loads."""

import json
import shutil

import numpy as np
import pytest

from trimtab.data import LAYOUTS
from trimtab.directions import ConceptVectors
from trimtab.sites import Site

pytestmark = pytest.mark.usefixtures("few_neutral_texts")


def plant(root, files):
    """Write {path: text, JSON value, or list of JSON lines for .jsonl} under a folder, and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl") and not isinstance(content, str):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return root


# --- the public files on the public checkpoint


@pytest.fixture
def stories260k(shared_models):
    """A Llama of 260 thousand parameters, five blocks, without a chat template."""
    pytest.importorskip("transformers", reason="needs transformers")
    return shared_models / "stories260K/hf"


@pytest.fixture
def extracted(trimtab, tmp_path):
    """Run `trimtab extract … --json`; (record, the file as it loads)."""

    def call(*argv):
        target = tmp_path / "vectors.safetensors"
        record = trimtab("extract", *argv, "--layers", "1,3", "-o", target, "--json").record
        found = ConceptVectors.load(target)
        assert record["sites"] == ["layer_1", "layer_3"] and tuple(record["concepts"]) == found.concepts
        for table in found.tables.values():
            assert np.isfinite(table.vectors).all() and (table.norms > 0).all() and (table.std > 0).all()
        return record, found

    return call


@pytest.mark.engine
def test_repes_lists(extracted, stories260k, shared_data):
    record, found = extracted(stories260k, "--data", shared_data / "repe/emotions")
    assert found.concepts == ("happiness", "sadness") and record["counts"]["happiness/positive"] == 203
    there, back = (found.direction(c, Site(3)).unit for c in found.concepts)
    assert there @ back == pytest.approx(-1, abs=1e-5)  # each is the other's negative


@pytest.mark.engine
def test_caas_questions_with_two_answers(extracted, stories260k, shared_data, tmp_path):
    rows = json.loads((shared_data / "caa/generate/refusal/generate_dataset.json").read_text())[:40]
    corpus = plant(tmp_path, {"caa/refusal/generate_dataset.json": rows}) / "caa"
    record, found = extracted(stories260k, "--data", corpus, "--method", "pca_diff_uncentered")
    assert found.concepts == ("refusal",) and record["counts"] == {
        "refusal/positive": 40,
        "refusal/negative": 40,
    }
    assert record["pooling"] == "last" and found.origin.parameters["paired"] == {"refusal": True}


def test_texts_longer_than_the_context_are_refused_before_the_model_loads(
    refused, shared_models, shared_data, tmp_path, no_model
):
    """Some of the published questions have more tokens, in this tokenizer of 512 words, than the model has places."""
    pytest.importorskip("tokenizers", reason="needs tokenizers, which come with transformers")
    corpus = shared_data / "caa/generate/sycophancy"
    argv = ("extract", shared_models / "stories260K/hf", "--data", corpus, "-o", tmp_path / "v.safetensors")
    message = refused(*argv)
    assert "positive text 3 of 'sycophancy' has 595 tokens" in message and "is 512; shorten it" in message


@pytest.mark.engine
def test_roles_and_traits_of_the_assistant_axis(extracted, stories260k, shared_data, tmp_path):
    for name in ("roles/instructions/default", "roles/instructions/jester", "traits/instructions/serene"):
        file = tmp_path / f"axis/{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_data / f"assistant_axis/{name}.json", file)
    shutil.copy(shared_data / "assistant_axis/extraction_questions.jsonl", tmp_path / "axis")
    record, found = extracted(stories260k, "--data", tmp_path / "axis", "--questions", "3")
    assert found.concepts == ("jester", "serene")
    assert found.origin.parameters["paired"] == {"jester": False, "serene": True}
    assert record["counts"]["serene/positive"] == 5 * 3 and record["counts"]["jester/negative"] == 4 * 3
    assert any("the first 3 of" in note for note in record["notes"])


@pytest.mark.engine
def test_stories_paired_scenarios_and_neutrals(extracted, stories260k, shared_data, tmp_path):
    texts = json.loads((shared_data / "tinystories_text/corpora/tinystories_100.json").read_text())
    openings = [" ".join(t.split()[:60]) for t in texts]
    kinds = {"animals": ("dog", "cat", "bird"), "family": ("mom", "dad", "sister")}
    told = {
        kind: [o for o in openings if any(w in o for w in words) and not any(w in o for w in others)]
        for (kind, words), others in zip(kinds.items(), reversed(kinds.values()), strict=True)
    }
    rest = [o for o in openings if not any(w in o for words in kinds.values() for w in words)]
    files = {f"stories/{kind}.txt": "\n---\n".join(found) for kind, found in told.items()}
    files |= {
        "paired/park/animals.txt": "In the park, a dog ran after a ball.",
        "paired/park/family.txt": "In the park, mom sat on a bench.",
        "paired/park/baseline.txt": "In the park, it was sunny.",
        "direct/_neutral.txt": "\n---\n".join(rest),
        "stories/robots.txt": " \n",
    }
    record, found = extracted(
        stories260k, "--data", plant(tmp_path / "corpus", files), "--method", "logistic"
    )
    assert found.concepts == ("animals", "family")
    own = {kind: len(found) + 1 for kind, found in told.items()}
    assert record["counts"]["animals/positive"] == own["animals"] >= 10
    assert record["counts"]["animals/negative"] == own["family"] + 1 + len(rest)
    assert any("skipped 1 empty file: stories/robots.txt" in note for note in record["notes"])


@pytest.mark.engine
def test_a_recipe_is_cut_by_the_models_own_tokens(extracted, stories260k, shared_data, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    suffixes = json.loads((shared_data / "repeng/all_truncated_outputs.json").read_text())
    suffixes = [s for s in suffixes if len(s.split()) > 3][:2]
    recipe = {"template": "I am a {x} child.", "concept": "joy", "positive": ["happy", "glad"]}
    recipe |= {"negative": ["sad", "hurt"], "suffixes": suffixes, "truncate": "tokens"}
    corpus = plant(tmp_path, {"joy.json": recipe}) / "joy.json"
    record, found = extracted(stories260k, "--data", corpus, "--method", "pca_diff_uncentered")
    cut = set()
    for suffix in suffixes:
        tokens = tokenizer(suffix, add_special_tokens=False).input_ids
        cut |= {tokenizer.decode(tokens[:n]).strip() for n in range(1, len(tokens) + 1)} - {""}
    assert record["counts"]["joy/positive"] == 2 * len(cut) > 4 * len(suffixes)
    assert found.origin.pooling == "last" and found.origin.parameters["paired"] == {"joy": True}


@pytest.mark.engine
def test_sixteen_concepts_by_their_subspaces(extracted, stories260k, tmp_path):
    """Concepts that are each other's negatives share one sum of projectors, and come out as each by itself does."""
    files = {
        f"stories/{word}.txt": "\n---\n".join(f"{name} saw a {word} {place}." for name, place in PLACES)
        for word in "dog cat bird fish tree car ball hat cake boat frog bear duck shoe book king".split()
    }
    folder = plant(tmp_path / "corpus", files)
    argv = (stories260k, "--data", folder, "--method", "subspace", "--set", "k=2")
    _, all_of_them = extracted(*argv)
    _, alone = extracted(*argv, "--concept", "cake")
    for site in all_of_them.sites:
        one, other = (v.direction("cake", site) for v in (all_of_them, alone))
        assert one.unit @ other.unit == pytest.approx(1, abs=1e-5)
        assert one.norm == pytest.approx(other.norm, rel=1e-5)


PLACES = [
    (n, p) for n in ("Tom", "Lily", "Ben") for p in ("in the park", "at home one day", "by the big river")
]


# --- responses that a judge has marked, on a model with a chat template


def judged():
    """Six questions to which a trait's two instructions are answered, with marks; a default response to each."""
    questions = [
        f"What do you think of {x}?" for x in ("rain", "cats", "school", "bread", "games", "the sea")
    ]
    marks = {"pos": (95, 90, 80, 75, 60, None), "neg": (5, 10, 20, 40, 20, 0), "default": (30,) * 6}
    said = {"pos": "I love it so much!", "neg": "I hate it. Go away.", "default": "It is fine."}
    return [
        {
            "trait": "warm",
            "side": side,
            "system": "" if side == "default" else f"Be {side}.",
            "question": question,
            "response": f"{said[side]} {question[18:-1]} number {i}.",
            "score": marks[side][i],
        }
        for side in ("neg", "pos", "default")
        for i, question in enumerate(questions)
    ]


KEPT = (0, 1, 2)  # pairs whose marks differ by more than 50: 90, 80, 60, then 35, 40 and a refusal


@pytest.fixture(scope="module")
def embedded():
    pytest.importorskip("transformers", reason="needs transformers")
    from trimtab.embedded import MODEL
    from trimtab.engines import load_engine

    if not MODEL.exists():
        pytest.skip("the embedded model is not built")
    return load_engine("embedded", dtype="float32", device="cpu")


def mean_over_answers(engine, rows):
    """The mean over rows of the mean state at layer 2 of each response's own tokens, by its span."""
    states = []
    for row in rows:
        turns = [{"role": "system", "content": row["system"]}] if row["system"] else []
        turns += [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["response"]},
        ]
        prompt = engine.encode(turns, generation_prompt=False)
        said = [i for i, role in enumerate(prompt.roles()) if role == "assistant"]
        states.append(engine.capture(prompt, [2])[0][Site(2)][said].astype(float).mean(0))
    return np.mean(states, 0)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("flags", "against", "positive", "negative"),
    [
        (("--method", "trait_contrast"), "neg", KEPT, KEPT),
        (("--method", "pos_neg"), "neg", range(6), range(6)),
        (("--method", "pos_70"), "neg", range(4), range(6)),
        (("--method", "pos_default_50", "--against", "default"), "default", (0, 1), (0, 1)),
        (("--method", "mean_diff", "--against", "default"), "default", range(6), range(6)),
        (("--method", "persona_response_avg"), "neg", range(5), range(6)),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) and isinstance(x[0], str) else None,
)
def test_judged_responses(trimtab, embedded, tmp_path, monkeypatch, flags, against, positive, negative):
    monkeypatch.setattr("trimtab.cli.models.load_engine", lambda *_, **__: embedded)
    monkeypatch.setattr(type(embedded), "close", lambda self: None)
    corpus = plant(tmp_path, {"judged.jsonl": judged()}) / "judged.jsonl"
    target = tmp_path / "warm.safetensors"
    done = trimtab("extract", "embedded", "--data", corpus, *flags, "--layers", "2", "-o", target, "--json")
    found = ConceptVectors.load(target).direction("warm", Site(2))
    sides = {side: [r for r in judged() if r["side"] == side] for side in ("pos", against)}
    expected = mean_over_answers(embedded, [sides["pos"][i] for i in positive])
    expected -= mean_over_answers(embedded, [sides[against][i] for i in negative])
    np.testing.assert_allclose(found.raw, expected, atol=1e-4 * np.linalg.norm(expected))
    assert done.record["pooling"] == "mean_assistant"
    assert any("6 default responses" in n or "6 neg responses" in n for n in done.record["notes"])


def test_judged_responses_without_partners_are_refused_where_pairs_are_needed(refused, tmp_path, no_model):
    rows = [r for r in judged() if (r["side"], r["score"]) != ("neg", 5)]
    corpus = plant(tmp_path, {"judged.jsonl": rows}) / "judged.jsonl"
    message = refused("extract", "embedded", "--data", corpus, "--method", "trait_contrast")
    assert "needs pairs for pos_neg_50" in message


# --- a bad corpus of each kind

ONE = {"question": "q", "answer_matching_behavior": "(A)", "answer_not_matching_behavior": ""}
BAD = {
    "stories": ({"corpus/stories/joy.txt": "once"}, "'joy' is its only concept"),
    "stories of one text": (
        {"corpus/joy.txt": "same", "corpus/grief.txt": "same", "corpus/_n.txt": "x"},
        "stand on both sides",
    ),
    "instructions": (
        {"corpus/poet.json": {"instruction": [{"pos": "Rhyme."}], "questions": ["q"]}},
        "no default",
    ),
    "instructions of a trait": (
        {"corpus/calm.json": {"instruction": [{"pos": "Calm.", "neg": ""}], "questions": ["q"]}},
        "blank 'neg'",
    ),
    "scored": (
        {"corpus/r.jsonl": [{"role": "poet", "question": "q", "response": "r", "score": 3, "side": "pos"}]},
        "one-sided",
    ),
    "answers": ({"corpus/a.json": [ONE]}, "entry 1 is one-sided"),
    "answers, open-ended": ({"corpus/a.json": [{"question": "Why?"}]}, "open-ended question"),
    "labelled": ({"corpus/l.csv": "statement,label\nIce is cold.,maybe\n"}, "line 2: label 'maybe'"),
    "pairs": ({"corpus/p.jsonl": [{"positive": "up"}]}, "line 1 is one-sided"),
    "table": ({"corpus/t.csv": "good,bad\nI am up,I am low\n"}, "may be names or a pair"),
    "template": (
        {
            "corpus/r.yaml": {
                "template": "Be {x}",
                "positive": ["a", "b"],
                "negative": ["c"],
                "suffixes": ["s"],
            }
        },
        "2 positive and 1 negative",
    ),
    "lists": ({"corpus/joy.json": ["a", "b"]}, "one-sided"),
    "dataset": ({"corpus/state.json": {"_data_files": []}}, "corpus"),
    "statements": (
        {"corpus/s.jsonl": [{"statement": "s", "answer_matching_behavior": "Perhaps"}]},
        "is not Yes or No",
    ),
}


@pytest.fixture
def model_folder(tmp_path):
    """As much of a model as may be looked at before it loads."""
    return plant(tmp_path, {"model/config.json": {"num_hidden_layers": 5, "hidden_size": 64}}) / "model"


@pytest.mark.parametrize("kind", sorted(set(BAD) - {"dataset"}))
def test_a_bad_corpus_is_refused_before_the_model_loads(refused, model_folder, tmp_path, no_model, kind):
    files, words = BAD[kind]
    corpus = plant(tmp_path, files) / "corpus"
    corpus = next(corpus.iterdir()) if len(files) == 1 and kind != "stories" else corpus
    layout = ("--layout", "statements") if kind == "statements" else ()
    message = refused("extract", model_folder, "--data", corpus, *layout, "-o", tmp_path / "v.safetensors")
    assert words in message
    assert not (tmp_path / "v.safetensors").exists()


def test_a_damaged_data_set_is_refused_before_the_model_loads(trimtab, model_folder, tmp_path, no_model):
    corpus = plant(tmp_path, BAD["dataset"][0]) / "corpus"
    done = trimtab("extract", model_folder, "--data", corpus, "-o", tmp_path / "v.safetensors")
    assert done.code in (1, 2) and done.err.count("error:") == 1 and done.out == ""


def test_every_layout_has_a_bad_corpus_here():
    assert {kind.split()[0].rstrip(",") for kind in BAD} == set(LAYOUTS)
