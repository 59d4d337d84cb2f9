"""The flags of `trimtab extract` that say how a corpus is read; none of them needs a model to be checked."""

import json

import pytest

from trimtab.directions import ConceptVectors

REFERENCE = ("extract", "tiny", "--engine", "reference")
DRY = ("--dry-run", "--json")
pytestmark = pytest.mark.usefixtures("few_neutral_texts")


@pytest.fixture
def answers(tmp_path):
    """Yes/No questions about a behaviour, with the statements that they ask about."""
    rows = [
        {"question": f"Do you {v}?", "statement": f"I {v}.", "answer_matching_behavior": yes}
        | {"answer_not_matching_behavior": "No" if yes == "Yes" else "Yes"}
        for v, yes in (("help", "Yes"), ("hide", "No"), ("share", "Yes"), ("shout", "No"))
    ]
    path = tmp_path / "kind.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def trait(tmp_path):
    """A trait's instruction file with three questions of its own."""
    path = tmp_path / "calm.json"
    content = {"instruction": [{"pos": "Be calm.", "neg": "Be mad."}], "questions": ["q1", "q2", "q3"]}
    path.write_text(json.dumps(content))
    return path


def test_chat_and_bare_decide_how_questions_are_written_and_read(trimtab, answers, no_model):
    chat, bare = (trimtab(*REFERENCE, "--data", answers, flag, *DRY).record for flag in ("--chat", "--bare"))
    assert chat["pooling"] == {"kind": "last_content"} and chat["tokens"] is None
    assert bare["pooling"] == {"kind": "last"}
    assert chat["concepts"]["kind"] == {"positive": 4, "negative": 4, "paired": True}


def test_chat_is_refused_where_the_layout_cannot(refused, joy_pairs, no_model):
    message = refused(*REFERENCE, "--data", joy_pairs, "--chat")
    assert "layout 'pairs', which takes no --chat" in message


def test_messages_are_refused_by_a_folder_without_a_template(refused, answers, tmp_path, no_model):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    assert "has no chat template: use --bare" in refused("extract", folder, "--data", answers, "--chat")


def test_layout_reads_the_same_file_another_way(trimtab, refused, answers, no_model):
    record = trimtab(*REFERENCE, "--data", answers, "--layout", "statements", *DRY).record
    assert record["concepts"]["kind"] == {"positive": 2, "negative": 2, "paired": False}
    assert record["pooling"] == {"kind": "mean_all"}
    assert "stories" in refused(*REFERENCE, "--data", answers, "--layout", "story")


def test_questions_limits_them_and_says_so(trimtab, refused, trait, joy_pairs, no_model):
    done = trimtab(*REFERENCE, "--data", trait, "--bare", "--questions", "2", *DRY)
    assert done.record["texts"] == 4 and "the first 2 of 3 questions of calm.json are asked" in done.err
    assert trimtab(*REFERENCE, "--data", trait, "--bare", *DRY).record["texts"] == 6
    assert "--questions must be at least 1" in refused(*REFERENCE, "--data", trait, "--questions", "0")
    assert "takes no --questions" in refused(*REFERENCE, "--data", joy_pairs, "--questions", "2")


def test_min_positives_is_a_floor_for_every_concept(trimtab, refused, joy_pairs, no_model):
    assert trimtab(*REFERENCE, "--data", joy_pairs, "--min-positives", "12", *DRY).code == 0
    message = refused(*REFERENCE, "--data", joy_pairs, "--min-positives", "13")
    assert "'joy' has 12 positive texts" in message and "--min-positives asks for 13" in message


def test_empty_files_are_said_or_with_strict_refused(trimtab, refused, tmp_path, no_model):
    folder = tmp_path / "tales"
    folder.mkdir()
    for name, text in (("joy", "I feel happy."), ("grief", "I feel sad."), ("fear", ""), ("_n", "We stay.")):
        (folder / f"{name}.txt").write_text(text)
    done = trimtab(*REFERENCE, "--data", folder, *DRY)
    assert set(done.record["concepts"]) == {"joy", "grief"} and "skipped 1 empty file: fear.txt" in done.err
    assert "1 empty file (--strict): fear.txt" in refused(*REFERENCE, "--data", folder, "--strict")


def test_negatives_and_concept_name_what_a_lone_list_shows(trimtab, refused, tmp_path, joy_pairs):
    for name, text in (("joy", "I feel happy today."), ("other", "I feel busy today.")):
        (tmp_path / f"{name}.json").write_text(json.dumps([text]))
    given = ("--data", tmp_path / "joy.json", "--negatives", tmp_path / "other.json", "--concept", "delight")
    target = tmp_path / "v.safetensors"
    record = trimtab(*REFERENCE, *given, "--layers", "1", "-o", target, "--json").record
    assert record["counts"] == {"delight/positive": 1, "delight/negative": 1}
    assert ConceptVectors.load(target).concepts == ("delight",)
    message = refused(*REFERENCE, "--data", joy_pairs, "--negatives", tmp_path / "other.json")
    assert "brings its own negatives" in message


def test_against_is_for_judged_responses(refused, joy_pairs, no_model):
    assert "takes no --against" in refused(*REFERENCE, "--data", joy_pairs, "--against", "neg")
    assert "default" in refused(*REFERENCE, "--data", joy_pairs, "--against", "pos")


def test_a_recipe_that_cuts_by_tokens_needs_the_tokenizer_before_the_model(refused, tmp_path, no_model):
    recipe = {"template": "Be {x}.", "positive": "up", "negative": "low", "suffixes": ["a b"]}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(recipe | {"truncate": "tokens"}))
    assert "needs the model's tokenizer" in refused(*REFERENCE, "--data", path)
