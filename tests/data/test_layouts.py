"""Layouts: what each loader yields, and what it refuses, by file and line."""

import json
from pathlib import Path

import pytest
import yaml

from trimtab import data
from trimtab.errors import FormatError, InputError, UnknownName

REPE = Path("../shared/data/repe")
REPENG = Path("../shared/data/repeng")


@pytest.fixture
def write(tmp_path):
    def make(name, content):
        path = tmp_path / name
        if not isinstance(content, str):
            content = json.dumps(content)
        path.write_text(content)
        return path

    return make


def lines(*rows):
    return "\n".join(json.dumps(r) for r in rows) + "\n"


def pair(n=0, **more):
    return {"positive": f"I am glad {n}.", "negative": f"I am low {n}.", **more}


# --- pairs


def test_pairs_of_text(write):
    (found,) = data.load(write("mood.jsonl", lines(pair(0), pair(1, group="g")) + "\n"))
    assert (found.concept, found.paired, found.read_pooling) == ("mood", True, "mean_all")
    assert found.positive == ("I am glad 0.", "I am glad 1.") and found.negative[1] == "I am low 1."
    assert found.groups == ("line 1", "g")


def test_pairs_of_messages_are_read_in_the_answer(write):
    def said(text):
        return {"messages": [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": text}]}

    row = {"positive": said("Great."), "negative": said("Awful.")["messages"]}
    (found,) = data.load(write("mood.jsonl", lines(row)))
    assert found.messages and found.answers and found.read_pooling == "mean_assistant"
    assert found.negative[0][1] == {"role": "assistant", "content": "Awful."}


def test_messages_that_wait_for_an_answer_are_read_at_the_end_of_the_prompt(write):
    row = {s: [{"role": "user", "content": s}] for s in ("positive", "negative")}
    (found,) = data.load(write("mood.jsonl", lines(row)))
    assert not found.answers and found.read_pooling == "prompt_last"


def test_one_contrast_per_concept_and_a_choice(write):
    path = write("many.jsonl", lines(pair(0, concept="a"), pair(1, concept="b"), pair(2, concept="a")))
    found = data.load(path)
    assert [(c.concept, len(c.positive)) for c in found] == [("a", 2), ("b", 1)]
    assert [c.concept for c in data.load(path, concept="b")] == ["b"]
    assert [c.concept for c in data.load(path, concept=["b", "a", "b"])] == ["b", "a"]
    assert [c.concept for c in data.load(path, concept=())] == ["a", "b"]
    with pytest.raises(UnknownName, match="unknown concept 'c'"):
        data.load(path, concept="c")


def test_the_only_concept_can_be_named(write):
    (found,) = data.load(write("mood.jsonl", lines(pair())), concept="joy")
    assert found.concept == "joy"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n  \n", "is empty"),
        (lines(pair()) + '{"positive": "x"', "line 2, column"),
        (lines(pair(), {"positive": "only"}), "line 2 is one-sided: 'negative'"),
        (lines({"positive": "a", "negative": ""}), "line 1 is one-sided"),
        (lines({"positive": "a", "negative": "  "}), "negative text 1 of 'bad' is blank"),
        (lines(["a", "b"]), "line 1: a pair is"),
        (lines({"postive": "a", "negative": "b"}), "Did you mean 'positive'"),
        (lines({"positive": "a", "negative": "a"}), "1 texts of 'bad' stand on both sides"),
        (lines(pair(0), {"positive": "x", "negative": "I am glad 0."}), "both sides"),
        (lines({"positive": 3, "negative": "b"}), "'positive' must be text"),
        (lines({"positive": [{"role": "user"}], "negative": "b"}), "a message is"),
        (lines({"positive": [{"role": "me", "content": "x"}], "negative": "b"}), "role 'me'"),
        (lines({"positive": [{"role": "user", "content": " "}], "negative": "b"}), "last message is blank"),
        (lines({"positive": [{"role": "user", "content": "x"}], "negative": "b"}), "mixes bare texts"),
    ],
)
def test_bad_pairs_are_refused_in_words(write, content, message):
    with pytest.raises(InputError, match=message):
        data.load(write("bad.jsonl", content))


def test_malformed_json_names_its_line(write):
    with pytest.raises(FormatError, match=r"bad\.json line 2, column"):
        data.load(write("bad.json", '["a",\n "b" "c"]'))


# --- flat lists


def test_two_lists_are_not_pairs(write):
    joy = write("joy.json", ["a", "b", "a"])
    (found,) = data.load(joy, negatives=write("grief.json", ["x", "y"]))
    assert (found.concept, found.paired, found.positive, found.negative) == (
        "joy",
        False,
        ("a", "b"),
        ("x", "y"),
    )
    assert found.notes == ("1 repeated texts of joy.json are read once",)


def test_a_lone_list_takes_its_siblings_but_no_mixtures_and_says_so(write):
    joy = write("joy.json", ["a", "b"])
    write("grief.json", ["x"])
    write("anger.json", ["y", "b"])
    write("grief_anger.json", ["mixed"])
    write("recipe.json", {"template": "not a list"})
    (found,) = data.load(joy)
    assert set(found.negative) == {"x", "y"}
    assert "anger.json, grief.json" in found.notes[0] and "left out" in found.notes[1]


def test_a_lone_list_without_siblings_is_one_sided(write):
    write("joy_grief.json", ["mixed"])
    with pytest.raises(InputError, match=r"one-sided.*--negatives"):
        data.load(write("joy.json", ["a"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is empty"),
        ("", "is empty"),
        ("[1, 2]", "flat JSON list"),
        ('["a", " "]', "text 2 of 'joy' is blank"),
    ],
)
def test_bad_lists(write, content, message):
    other = write("grief.json", ["x"])
    with pytest.raises(InputError, match=message):
        data.load(write("joy.json", content), negatives=other)


def test_a_text_in_both_lists_is_refused(write):
    with pytest.raises(InputError, match=r"both sides, e.g. 'b'"):
        data.load(write("joy.json", ["a", "b"]), negatives=write("grief.json", ["b"]))


# --- recipes


def recipe(**changes):
    return {
        "template": "Act as if you're extremely {act}.",
        "concept": "happy",
        "positive": ["happy", "joyful"],
        "negative": ["sad", "gloomy"],
        "suffixes": ["I can see", "", "Hm"],
        **changes,
    }


def test_a_recipe_multiplies_words_and_suffixes(write):
    (found,) = data.load(write("r.json", recipe()))
    assert found.paired and found.concept == "happy" and found.read_pooling == "last"
    assert len(found.positive) == 2 * 2
    assert found.positive[0] == "Act as if you're extremely happy. I can see"
    assert found.negative[1] == "Act as if you're extremely gloomy. I can see"
    assert found.groups == ("I can see", "I can see", "Hm", "Hm")
    assert found.notes == ("1 blank suffixes left out",)


def test_truncations_are_the_prefixes_of_each_suffix(write):
    (found,) = data.load(
        write("r.yaml", yaml.safe_dump(recipe(truncate="words", suffixes=["a b c", "a b d"])))
    )
    endings = [t.partition(". ")[2] for t in found.positive[::2]]
    assert endings == ["a", "a b", "a b c", "a b d"]
    assert set(found.groups) == {"a b c", "a b d"}


def test_a_chat_recipe_puts_the_suffix_in_the_answer(write):
    (found,) = data.load(write("r.json", recipe(chat=True)))
    user, answer = found.positive[0]
    assert (user["content"], answer["content"]) == ("Act as if you're extremely happy.", "I can see")
    assert found.answers and found.read_pooling == "last_content"


def test_suffixes_from_a_file_and_several_concepts(write):
    write("openings.json", ["One", "Two"])
    concepts = {
        "joy": {"positive": "happy", "negative": "sad"},
        "calm": {"positive": ["calm"], "negative": ["tense"]},
    }
    path = write("r.json", {"template": "Be {x}", "suffixes": "openings.json", "concepts": concepts})
    assert [(c.concept, c.positive[0]) for c in data.load(path)] == [
        ("joy", "Be happy One"),
        ("calm", "Be calm One"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negative": []}, "one-sided"),
        ({"negative": ["sad"]}, "2 positive and 1 negative"),
        ({"template": "Be happy."}, "exactly one placeholder"),
        ({"template": "{a} {b}"}, "exactly one placeholder"),
        ({"template": 3}, "a template is text"),
        ({"suffixes": ["", " "]}, "no suffixes"),
        ({"suffixes": 3}, "must be a list"),
        ({"suffixes": "none.json"}, "none.json"),
        ({"truncate": "tokens"}, "the model.s tokenizer"),
        ({"sufixes": ["a"]}, "Did you mean 'suffixes'"),
    ],
)
def test_bad_recipes(write, changes, message):
    with pytest.raises(InputError, match=message):
        data.load(write("r.json", recipe(**changes)))


# --- tables


def test_labelled_statements(write):
    text = 'statement,label\n"Ice, when warm, melts.",1\nFire is cold.,0\nFire is cold.,0\nBoth.,1\nBoth.,0\n'
    (found,) = data.load(write("facts.csv", text))
    assert (found.positive, found.negative) == (("Ice, when warm, melts.",), ("Fire is cold.",))
    assert "repeated" in found.notes[0] and "'Both.'" in found.notes[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "needs the columns"),
        ("statement,label\nx,maybe\n", "line 2: label 'maybe'"),
        ("statement,label\n,1\n", "line 2: the statement is blank"),
        ("statement,label\nx,1\n", "one-sided"),
        ("statement,label\n", "holds no texts"),
    ],
)
def test_bad_tables(write, content, message):
    with pytest.raises(InputError, match=message):
        data.load(write("facts.csv", content))


# --- the front door


def test_missing_files_folders_and_unknown_layouts(write, tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        data.load(tmp_path / "none.jsonl")
    with pytest.raises(FormatError, match="is an empty folder.*stories/"):
        data.load(tmp_path)
    with pytest.raises(FormatError, match="no layout that trimtab reads"):
        data.load(write("data.xyz", "x"))
    with pytest.raises(UnknownName, match="lists"):
        data.load(write("data.txt", "x"), layout="list")


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not UTF-8"):
        data.load(path)


@pytest.mark.parametrize("name", ["pairs.jsonl", "r.json", "t.csv"])
def test_negatives_belong_to_lists(write, name):
    content = {"pairs.jsonl": lines(pair()), "r.json": recipe(), "t.csv": "statement,label\na,1\nb,0\n"}[name]
    with pytest.raises(InputError, match="leave --negatives out"):
        data.load(write(name, content), negatives=write("other.json", ["x"]))


def test_the_hash_follows_the_content_alone(write):
    (first,) = data.load(write("mood.jsonl", lines(pair(0))))
    (same,) = data.load(write("other.jsonl", lines(pair(0, concept="mood", group="line 1"))))
    (other,) = data.load(write("mood.jsonl", lines(pair(1))))
    assert first.hash == same.hash != other.hash


# --- the published files


@pytest.mark.skipif(not REPE.exists(), reason="../shared/data/repe is not here")
def test_repe_files():
    happy = REPE / "emotions/happiness.json"
    (found,) = data.load(happy, negatives=REPE / "emotions/sadness.json")
    assert found.counts == {"positive": 203, "negative": 228} and not found.paired
    (alone,) = data.load(happy)
    assert "sadness.json" in alone.notes[0] and "happiness_sadness" not in alone.notes[0]
    (facts,) = data.load(REPE / "facts/facts_true_false.csv")
    assert facts.counts == {"positive": 297, "negative": 300}


@pytest.mark.skipif(not REPENG.exists(), reason="../shared/data/repeng is not here")
def test_repeng_suffixes(write):
    suffixes = str((REPENG / "all_truncated_outputs.json").resolve())
    (found,) = data.load(write("r.json", recipe(suffixes=suffixes)))
    assert found.paired and len(found.positive) > 1000
