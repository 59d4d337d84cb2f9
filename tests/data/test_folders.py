"""Corpora in folders, and files of the field's own layouts: what each yields, and what it refuses in words."""

import warnings

import pytest

from trimtab import data
from trimtab.data.options import CorpusWarning
from trimtab.errors import InputError, UnknownName

pytestmark = pytest.mark.filterwarnings("error::trimtab.data.options.CorpusWarning")


# --- stories, paired, direct

FULL = {
    "stories/joy.txt": "j one\n\nj two\nstill two\n \nj three",
    "stories/grief.txt": "g one\n\nwith a paragraph\n---\ng two\n",
    "paired/fair/joy.txt": "fair joy",
    "paired/fair/grief.txt": "fair grief",
    "paired/fair/baseline.txt": "fair plain",
    "direct/joy.txt": "I am glad",
    "direct/_neutral.txt": "a fact\n\nanother fact",
}


def test_a_concept_is_told_from_the_others_the_baselines_and_the_neutrals(tree):
    grief, joy = data.load(tree(FULL))
    assert (grief.concept, joy.concept, joy.paired) == ("grief", "joy", False)
    assert set(joy.positive) == {"j one", "j two\nstill two", "j three", "fair joy", "I am glad"}
    assert set(joy.negative) == {
        "g one\n\nwith a paragraph",
        "g two",
        "fair grief",
        "fair plain",
        "a fact",
        "another fact",
    }
    assert set(grief.negative) == set(joy.positive) | {"fair plain", "a fact", "another fact"}


def test_one_scenario_is_one_group_and_every_story_its_own(tree):
    _, joy = data.load(tree(FULL))
    group = dict(zip(joy.positive + joy.negative, joy.groups + joy.negative_groups))
    assert group["fair joy"] == group["fair grief"] == group["fair plain"] == "scenario fair"
    own = [g for text, g in group.items() if not text.startswith("fair")]
    assert len(set(own)) == len(own) and "scenario fair" not in own


@pytest.mark.parametrize("kind", ["stories", "direct", "paired/fair"])
def test_each_kind_works_alone_and_by_its_own_folder(tree, kind):
    root = tree({f"{kind}/joy.txt": "a", f"{kind}/grief.txt": "b", f"{kind}/_neutral.txt": "c"})
    for path in (root, root / kind.split("/")[0]):
        assert [(c.concept, set(c.negative)) for c in data.load(path)] == [
            ("grief", {"a", "c"}),
            ("joy", {"b", "c"}),
        ]


def test_few_concepts_without_neutrals_warn_and_eight_do_not(tree):
    with pytest.warns(CorpusWarning, match="2 concepts and no neutrals"):
        data.load(tree({"joy.txt": "a", "grief.txt": "b"}))
    data.load(tree({f"c{i}.txt": f"text {i}" for i in range(8)} | {"joy.txt": "a", "grief.txt": "b"}))


def test_empty_files_are_skipped_named_and_counted_or_refused(tree):
    root = tree(FULL | {"stories/anger.txt": " \n", "direct/fear.txt": ""})
    found = data.load(root)
    assert [c.concept for c in found] == ["grief", "joy"]
    assert found[0].notes == ("skipped 2 empty files: direct/fear.txt, stories/anger.txt",)
    with pytest.raises(InputError, match=r"2 empty files \(--strict\): direct/fear"):
        data.load(root, strict=True)


def test_too_few_positives_are_refused(tree):
    assert len(data.load(tree(FULL), min_positives=3)) == 2
    with pytest.raises(InputError, match="'grief' has 3 positive texts.*min-positives asks for 4"):
        data.load(tree(FULL), min_positives=4)


def test_many_lines_without_a_separator_are_one_text_and_said(tree):
    root = tree({"joy.txt": "a\nb\nc\nd\ne", "_neutral.txt": "x"})
    assert data.load(root)[0].counts["positive"] == 1
    assert "joy.txt is read as one text of 5 lines" in data.load(root)[0].notes[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"joy.txt": "a"}, "one-sided: 'joy' is its only concept"),
        ({"_neutral.txt": "a"}, "has no concept"),
        ({"joy.txt": " ", "_n.txt": "x"}, "has no concept"),
        ({"joy.txt": "same", "grief.txt": "same", "_n.txt": "x"}, "stand on both sides"),
    ],
)
def test_bad_story_folders(tree, files, message):
    with pytest.raises(InputError, match=message):
        data.load(tree(files))


# --- roles and traits

ROLES = {
    "roles/instructions/poet.json": {
        "instruction": [{"pos": "Be a poet."}, {"pos": "Rhyme."}],
        "questions": ["own?"],
    },
    "roles/instructions/default.json": {
        "instruction": [{"pos": ""}, {"pos": "You are {model_name}."}, {"pos": "Be."}]
    },
    "traits/instructions/calm.json": {
        "instruction": [{"pos": "Calm.", "neg": "Tense."}],
        "questions": ["own?"],
    },
    "extraction_questions.jsonl": [{"question": "q1", "id": 0}, {"question": "q2", "id": 1}],
}


def test_roles_meet_the_default_instructions_on_the_same_questions(tree):
    (poet,) = data.load(tree(ROLES) / "roles", chat=False)
    assert poet.positive == ("Be a poet.\n\nq1", "Rhyme.\n\nq1", "Be a poet.\n\nq2", "Rhyme.\n\nq2")
    assert poet.negative == ("q1", "Be.\n\nq1", "q2", "Be.\n\nq2")
    assert not poet.paired and poet.groups == ("q1", "q1", "q2", "q2") == poet.negative_groups
    assert "1 instructions of default.json that name {model_name}" in poet.notes[0]


def test_messages_put_the_instruction_in_the_system_turn_and_are_read_at_the_end(tree):
    (poet,) = data.load(tree(ROLES) / "roles")
    assert poet.positive[0] == (
        {"role": "system", "content": "Be a poet."},
        {"role": "user", "content": "q1"},
    )
    assert poet.negative[0] == ({"role": "user", "content": "q1"},)
    assert poet.read_pooling == "prompt_last"


def test_traits_are_pairs_and_the_whole_folder_gives_both(tree):
    poet, calm = data.load(tree(ROLES), chat=False, questions=1)
    assert (poet.concept, poet.counts) == ("poet", {"positive": 2, "negative": 2})
    assert calm.paired and (calm.positive, calm.negative) == (("Calm.\n\nq1",), ("Tense.\n\nq1",))
    assert calm.groups == ("q1",) and "the first 1 of 2 questions" in calm.notes[0]


def test_a_files_own_questions_serve_where_none_are_shared(tree):
    root = tree({n: c for n, c in ROLES.items() if "questions" not in n})
    (calm,) = data.load(root / "traits/instructions/calm.json", chat=False)
    assert calm.positive == ("Calm.\n\nown?",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"poet.json": ROLES["roles/instructions/poet.json"]}, "one-sided.*no default.json"),
        ({"calm.json": {"instruction": [{"pos": "a", "neg": "b"}]}}, "has no questions"),
        (
            {"calm.json": {"instruction": [{"pos": "a", "neg": "b"}, {"pos": "c"}], "questions": ["q"]}},
            "'neg' is missing",
        ),
        ({"calm.json": {"instruction": []}}, "must be a list"),
        ({"calm.json": {"instruction": [{"pos": "a", "neg": "a"}], "questions": ["q"]}}, "both sides"),
    ],
)
def test_bad_instructions(tree, files, message):
    with pytest.raises(InputError, match=message):
        data.load(tree(files))


# --- questions with answers


def ask(question, match="(A)", other="(B)", **more):
    return {
        "question": question,
        "answer_matching_behavior": match,
        "answer_not_matching_behavior": other,
        **more,
    }


def test_answers_are_pairs_read_at_the_letter(tree):
    root = tree(
        {"generate/flattery/generate_dataset.json": [ask("q1"), ask("q2", " (B)", " (A)"), ask("q1")]}
    )
    (found,) = data.load(root / "generate")
    assert (found.concept, found.paired, found.read_pooling) == ("flattery", True, "last_content")
    assert [i[-1]["content"] for i in found.positive] == ["(A", "(B"]
    assert [i[-1]["content"] for i in found.negative] == ["(B", "(A"]
    assert found.notes == ("1 repeated questions are read once",)
    (bare,) = data.load(root / "generate/flattery", chat=False)
    assert (bare.positive[1], bare.read_pooling) == ("q2\n\nAnswer: (B", "last")


def test_yes_no_files_are_answers_and_by_name_statements(tree):
    rows = [ask("s1?", " Yes", " No", statement="s1"), ask("s2?", " No", " Yes", statement="s2")]
    path = tree({"kind.jsonl": rows}) / "kind.jsonl"
    (pairs,) = data.load(path, chat=False)
    assert pairs.positive == ("s1?\n\nAnswer: Yes", "s2?\n\nAnswer: No")
    (statements,) = data.load(path, layout="statements")
    assert (statements.positive, statements.negative) == (("s1",), ("s2",))


def test_one_answer_for_nearly_all_questions_warns(tree):
    with pytest.warns(CorpusWarning, match=r"5 of 5 questions of 'one' match with the answer '\(A\)'"):
        data.load(tree({"one.jsonl": [ask(f"q{i}") for i in range(5)]}) / "one.jsonl")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "Why?"}], "open-ended question.*prompts"),
        ([ask("q"), {"question": "Why?"}], "entry 2 is an open-ended"),
        ([ask("q", other="")], "one-sided"),
        ([ask("q", other="(A)")], "both answers are"),
        ([ask(" ")], "the question is blank"),
        ([ask("q"), ask("q", "(B)", "(A)")], "holds no texts"),
    ],
)
def test_bad_answers(tree, rows, message):
    with pytest.raises(InputError, match=message):
        data.load(tree({"d.json": rows}) / "d.json")


# --- tables of pairs


@pytest.mark.parametrize(("name", "cut"), [("d.csv", ","), ("d.tsv", "\t")])
def test_named_and_nameless_tables(tree, name, cut):
    named = (
        cut.join(("negative", "positive", "concept", "x"))
        + "\n"
        + cut.join(("I am low", "I am up", "joy", "1"))
    )
    (found,) = data.load(tree({name: named}) / name)
    assert (found.concept, found.positive, found.negative) == ("joy", ("I am up",), ("I am low",))
    assert found.notes == (f"columns of {name} that are not read: x",)
    (found,) = data.load(tree({name: f"I am up{cut}I am low\nIt is up{cut}It is low\n"}) / name)
    assert found.positive == ("I am up", "It is up") and "first column is positive" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("good,bad\nI am up,I am low\n", "may be names or a pair"),
        ("I am up,I am low,I am\n", "this row has 3"),
        ("positive,negative\nI am up\n", "has 1 cells"),
        ("positive,negative\nI am up,\n", "line 2 is one-sided"),
        ("positive,negative\n", "holds no texts"),
    ],
)
def test_bad_tables_of_pairs(tree, text, message):
    with pytest.raises(InputError, match=message):
        data.load(tree({"d.csv": text}) / "d.csv")


def test_labelled_json_lines_with_concepts(tree):
    rows = [{"text": f"{c}{n}", "label": n, "concept": c} for c in "ab" for n in (1, 0)]
    assert [(c.concept, c.positive, c.negative) for c in data.load(tree({"l.jsonl": rows}) / "l.jsonl")] == [
        ("a", ("a1",), ("a0",)),
        ("b", ("b1",), ("b0",)),
    ]


# --- recipes that cut by tokens, or name files


def test_a_recipe_cuts_by_the_tokenizer_it_is_given(tree):
    recipe = {
        "template": "Be {x}.",
        "positive": "up",
        "negative": "low",
        "suffixes": ["abcd"],
        "truncate": "tokens",
    }
    path = tree({"r.json": recipe}) / "r.json"
    (found,) = data.load(path, prefixes=lambda text: [text[:2]])
    assert found.positive == ("Be up. ab", "Be up. abcd") and set(found.groups) == {"abcd"}


def test_a_recipe_takes_persona_pairs_and_scenarios_from_files(tree):
    files = {
        "r.yaml": "template: You are {x}.\nconcepts: p.jsonl\nsuffixes: s.jsonl\n",
        "p.jsonl": [{"id": "honesty", "pos": "honest", "neg": "sly"}],
        "s.jsonl": [{"id": "s", "text": "Well,"}],
    }
    (found,) = data.load(tree(files) / "r.yaml")
    assert (found.concept, found.positive, found.negative) == (
        "honesty",
        ("You are honest. Well,",),
        ("You are sly. Well,",),
    )


# --- folders in general


def test_a_folder_of_lists_leaves_mixtures_out(tree):
    found = data.load(tree({"joy.json": ["a"], "grief.json": ["b"], "joy_grief.json": ["c"]}))
    assert [(c.concept, c.positive, c.negative) for c in found] == [
        ("grief", ("b",), ("a",)),
        ("joy", ("a",), ("b",)),
    ]
    assert "mixtures" in found[0].notes[0]


def test_a_folder_of_files_of_one_layout(tree):
    rows = [{"positive": "up", "negative": "low"}]
    root = tree({"joy.jsonl": rows, "calm.jsonl": rows, "empty.jsonl": "", "README.md": "x"})
    found = data.load(root)
    assert [c.concept for c in found] == ["calm", "joy"] and "skipped 1 empty file: empty.jsonl" in found[
        0
    ].notes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.md": "x"}, "A folder may hold: stories/"),
        ({"a.jsonl": [{"positive": "u", "negative": "l"}], "b.yaml": "x: 1"}, "files of several layouts"),
        (
            {x: [{"positive": "u", "negative": "l", "concept": "c"}] for x in ("a.jsonl", "b.jsonl")},
            "'c' twice",
        ),
    ],
)
def test_bad_folders(tree, files, message):
    with pytest.raises(InputError, match=message):
        data.load(tree(files))


@pytest.mark.parametrize(
    ("option", "value"), [("chat", True), ("questions", 3), ("negatives", "N"), ("against", "neg")]
)
def test_an_option_that_a_layout_does_not_know_is_refused(tree, option, value):
    root = tree(FULL | {"n.json": ["x"]})
    with pytest.raises(InputError, match=f"--{option}"):
        data.load(root, **{option: root / "n.json" if value == "N" else value})


def test_counts_below_one_are_refused(tree):
    with pytest.raises(InputError, match="--questions must be at least 1"):
        data.load(tree(ROLES), questions=0)


# --- the published files


@pytest.mark.parametrize(
    ("path", "options", "concepts", "first"),
    [
        ("repe/emotions", {}, 2, (203, 228)),
        ("caa/generate", {}, 2, (408, 408)),
        ("assistant_axis/roles", {"questions": 2}, 20, (10, 8)),
        ("assistant_axis/traits", {"questions": 2}, 21, (10, 10)),
        ("anthropic_evals/persona", {}, 3, (1000, 1000)),
        ("anthropic_evals/persona", {"layout": "statements"}, 3, (500, 500)),
    ],
)
def test_published_folders(shared_data, path, options, concepts, first):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = data.load(shared_data / path, **options)
    assert len(found) == concepts and tuple(found[0].counts.values()) == first


def test_published_files_that_are_refused(shared_data):
    with pytest.raises(InputError, match="open-ended"):
        data.load(shared_data / "caa/test/refusal/test_dataset_open_ended.json")
    with pytest.raises(UnknownName, match="unknown key 'id'"):
        data.load(shared_data / "persona_library/personas")


def test_the_published_persona_pairs_and_scenarios_make_a_recipe(shared_data, tree):
    library = shared_data.resolve() / "persona_library"
    recipe = {
        "template": "You are someone who is {persona}.",
        "concepts": str(library / "personas/persona_pairs_v2_candidates.jsonl"),
        "suffixes": str(library / "scenarios/scenarios_daily_dilemmas_200.jsonl"),
    }
    found = data.load(tree({"r.json": recipe}) / "r.json")
    assert len(found) == 20 and found[0].counts == {"positive": 200, "negative": 200}
