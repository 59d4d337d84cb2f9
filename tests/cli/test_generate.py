"""`trimtab generate`: what it applies is what it says, and bad input ends before anything runs."""

import json

import numpy as np
import pytest
import yaml

from trimtab import Request, Sampling, SteeringPlan
from trimtab.directions import ConceptVectors, Direction, Origin
from trimtab.engines import load_engine
from trimtab.sites import Site

GENERATE = ("generate", "tiny", "--engine", "reference")
ASK = (*GENERATE, "--prompt", "I feel really")
FEW = ("--max-tokens", "6")


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture
def foreign(tmp_path):
    """A file from elsewhere: two concepts, no norms, no typical norms, nothing about its origin."""
    truth = load_engine("tiny", "reference").planted
    rows = [Direction(c, Site(2), truth[c]) for c in ("joy", "anger")]
    path = tmp_path / "foreign.safetensors"
    ConceptVectors.from_directions(rows).save(path)
    return path


def test_plain_text_is_what_the_engine_gives(trimtab, engine):
    done = trimtab(*ASK, *FEW, "--json")
    sampling = Sampling(6, seed=0)
    (plain,) = engine.generate(Request(engine.encode("I feel really", bare=True), sampling=sampling))
    assert (done.record["text"], tuple(done.record["tokens"])) == (plain.text, plain.tokens)
    assert done.record["finish"] == plain.samples[0].finish
    assert done.record["steering_applied"]["fingerprint"] == "plain"
    assert done.record["steering_applied"]["tokens_steered"] == 0 and done.record["readings"] is None


def test_steering_does_what_the_receipt_says(trimtab, engine, joy):
    done = trimtab(*ASK, *FEW, "--steer", joy, "--dose", "1", "--json")
    applied = done.record["steering_applied"]
    engine.library["joy"] = ConceptVectors.load(joy)
    prompt = engine.encode("I feel really", bare=True)
    (same,) = engine.generate(Request(prompt, SteeringPlan.add("joy", dose=1.0), Sampling(6, seed=0)))
    assert done.record["text"] == same.text != trimtab(*ASK, *FEW, "--json").record["text"]
    assert applied["fingerprint"] == same.applied.fingerprint
    assert (applied["vectors"], applied["layers"], applied["dose"]) == (["joy"], [2], pytest.approx(1.0))
    found = engine.library["joy"]
    ratio = found.typical_norms[Site(2)] / found.direction("joy", Site(2)).norm
    assert applied["scale"] == pytest.approx(ratio)
    assert applied["tokens_steered"] == done.record["prompt_tokens"] + 6 - 1


def test_the_text_is_the_result_and_the_receipt_a_note(trimtab, joy):
    done = trimtab(*ASK, *FEW, "--steer", f"{joy}:joy", "--scale", "2", "--layers", "all")
    record = trimtab(*ASK, *FEW, "--steer", f"{joy}:joy", "--scale", "2", "--layers", "all", "--json").record
    assert done.out == record["text"] + "\n"
    assert "dose +" in done.err and "scale +2" in done.err and "layer 2 of 4 (50 %)" in done.err
    assert record["steering_applied"]["fingerprint"] in done.err
    assert record["steering_applied"]["layers"] == [0, 1, 2, 3]
    assert record["steering_applied"]["scale"] == pytest.approx(2)


def test_a_total_is_shared_by_layers_unless_each_takes_it_whole(trimtab, joy):
    flags = (*ASK, *FEW, "--steer", joy, "--dose", "0.4", "--layers", "1,3", "--json")
    shared, whole = (trimtab(*flags, *more).record["steering_applied"] for more in ((), ("--per-layer",)))
    assert (shared["dose"], whole["dose"]) == (pytest.approx(0.4), pytest.approx(0.8))
    assert [p["dose_here"] for p in shared["placements"]] == [pytest.approx(0.2)] * 2


def test_a_dose_of_zero_is_plain(trimtab, joy):
    plain, zero = (
        trimtab(*ASK, *FEW, *flags, "--json").record for flags in ((), ("--steer", joy, "--dose", "0"))
    )
    assert plain["tokens"] == zero["tokens"] and zero["steering_applied"]["fingerprint"] == "plain"


@pytest.mark.parametrize(
    ("positions", "steered"),
    [
        ("prompt", lambda generated: 4),
        ("generated", lambda generated: generated - 1),  # the last token is never read by the model
        ("last_prompt", lambda generated: 1),
        ("after=1", lambda generated: 2 + generated - 1),
        ('{"ranges": [[0, 2]]}', lambda generated: 2),
    ],
)
def test_positions(trimtab, joy, positions, steered):
    flags = ("--steer", joy, "--dose", "1", "--positions", positions, "--json")
    record = trimtab(*ASK, *FEW, *flags).record
    assert record["steering_applied"]["tokens_steered"] == steered(len(record["tokens"]))


def test_roles_need_messages(trimtab, refused, joy):
    flags = ("--steer", joy, "--dose", "1", "--positions", "role=user")
    chat = trimtab(*ASK, *FEW, *flags, "--chat", "--json").record
    assert chat["steering_applied"]["tokens_steered"] == 3
    assert "need messages" in refused(*ASK, *FEW, *flags)


def test_samples_and_seeds(trimtab):
    flags = (*ASK, *FEW, "--temperature", "1", "-n", "3", "--json")
    first, again, other = (trimtab(*flags, "--seed", s).record for s in (1, 1, 2))
    assert first["texts"] == again["texts"] != other["texts"]
    assert len(set(first["texts"])) > 1 and [s["text"] for s in first["samples"]] == first["texts"]


def test_chat_system_and_messages_are_one_thing(trimtab, tmp_path):
    turns = [{"role": "system", "content": "be merry"}, {"role": "user", "content": "I feel"}]
    file = tmp_path / "m.json"
    file.write_text(json.dumps(turns))
    ways = [
        ("--prompt", "I feel", "--system", "be merry"),
        ("--messages", json.dumps(turns)),
        ("--messages", file),
        ("--messages", json.dumps(turns[1]), "--system", "be merry"),
    ]
    records = [trimtab(*GENERATE, *FEW, *way, "--json").record for way in ways]
    assert all(r["prompt"] == turns and r["tokens"] == records[0]["tokens"] for r in records)


def test_bare_text_to_a_chat_model_warns_once(trimtab):
    done = trimtab(*ASK, *FEW)
    assert done.err.count("warning:") == 1 and "use --chat" in done.err
    assert "warning" not in trimtab(*ASK, *FEW, "--chat").err


def test_readings_cover_every_generated_token(trimtab, engine, joy):
    record = trimtab(*ASK, *FEW, "--read", joy, "--json").record
    read, vectors = record["readings"], ConceptVectors.load(joy)
    site = vectors.read_site()
    assert (read["concepts"], read["layers"], read["unit"]) == (["joy"], [site.layer], "z")
    assert read["start"] == record["prompt_tokens"] == 4
    whole = [*engine.encode("I feel really", bare=True).tokens, *record["tokens"]]
    states = engine.capture(whole, [site])[0][site][3:-1]
    table = vectors.table(site)
    z = (states @ table.vectors[0] - table.mean[0]) / table.std[0]
    assert np.allclose(np.array(read["values"])[:, 0, 0], z, rtol=1e-3, atol=1e-3)


def test_texts_and_readings_for_a_reader(trimtab, joy):
    flags = (*ASK, "--max-tokens", "60", "--temperature", "1", "-n", "2", "--read", joy)
    out, texts = trimtab(*flags).out, trimtab(*flags, "--json").record["texts"]
    assert all(text + "\n" in out for text in texts)  # not folded to the width of a table
    assert out.count("mean z") == 2 and max(map(len, texts)) > 120


# --- plans


def test_a_plan_file_in_yaml_or_json(trimtab, joy):
    plan = {"placements": [{"op": "ablate", "vector": "joy.safetensors:joy", "layers": "all"}]}
    as_yaml, as_json = joy.parent / "plan.yaml", joy.parent / "plan.json"
    as_yaml.write_text(yaml.safe_dump(plan))
    as_json.write_text(json.dumps(plan))
    found = [
        trimtab(*ASK, *FEW, "--plan", p, "--json").record["steering_applied"] for p in (as_yaml, as_json)
    ]
    assert found[0] == found[1]
    assert (found[0]["vectors"], found[0]["dose"], found[0]["layers"]) == (["joy"], None, [0, 1, 2, 3])


def test_a_plan_and_a_vector_act_together(trimtab, joy):
    plan = joy.parent / "plan.yaml"
    plan.write_text(
        yaml.safe_dump({"placements": [{"op": "ablate", "vector": "joy.safetensors", "layers": 1}]})
    )
    flags = ("--plan", plan, "--steer", joy, "--dose", "1", "--layers", "2")
    applied = trimtab(*ASK, *FEW, *flags, "--json").record["steering_applied"]
    assert [(p["op"], p["site"]) for p in applied["placements"]] == [
        ("ablate", "layer_1"),
        ("add", "layer_2"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("placements: [{op: ad, vector: joy.safetensors}]", "Did you mean 'add'"),
        ("placments: []", "Did you mean 'placements'"),
        ("placements: [{op: add, vector: none.safetensors, dose: 1}]", "no such file"),
        ("placements: [{op: add, vector: joy.safetensors}]", "exactly one of dose, scale"),
        ("- a", "must hold an object"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_plans(refused, joy, no_model, text, message):
    plan = joy.parent / "plan.yaml"
    plan.write_text(text)
    assert message in refused(*ASK, "--plan", plan)


# --- foreign files


def test_a_dose_on_a_foreign_file_is_measured_and_said(trimtab, foreign, engine, few_neutral_texts):
    from trimtab.recipes import typical_norms

    done = trimtab(*ASK, *FEW, "--steer", f"{foreign}:anger", "--dose", "0.5", "--json")
    assert "stores no typical norms" in done.err
    (placed,) = done.record["steering_applied"]["placements"]
    assert placed["typical_norm"] == pytest.approx(typical_norms(engine, [2])[Site(2)])


def test_a_foreign_file_is_read_as_coordinates(trimtab, foreign):
    read = trimtab(*ASK, *FEW, "--read", foreign, "--json").record["readings"]
    assert (read["concepts"], read["unit"]) == (["joy", "anger"], "coordinate")


def test_a_file_of_another_model_of_the_same_size_warns(trimtab, joy):
    from dataclasses import replace

    found = ConceptVectors.load(joy)
    other = joy.parent / "other.safetensors"
    replace(found, origin=Origin(model="elsewhere", n_layers=4)).save(other)
    assert "was extracted from elsewhere" in trimtab(*ASK, *FEW, "--steer", other, "--dose", "1").err
    assert "elsewhere" not in trimtab(*ASK, *FEW, "--steer", joy, "--dose", "1").err


# --- refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steer", "JOY"), "exactly one of --dose"),
        (("--steer", "JOY", "--dose", "1", "--scale", "1"), "exactly one of --dose"),
        (("--dose", "1"), "need a vector"),
        (("--steer", "JOY", "--dose", "nan"), "finite number"),
        (("--steer", "JOY:grief", "--dose", "1"), "unknown concept 'grief'"),
        (("--steer", "none.safetensors", "--dose", "1"), "no such file: none.safetensors"),
        (("--steer", "none.safetensors:joy", "--dose", "1"), "no such file: none.safetensors"),
        (("--steer", "FOREIGN", "--dose", "1"), "with one of: joy, anger"),
        (("--steer", "JOY", "--dose", "1", "--stream", "resid"), "unknown stream 'resid'"),
        (("--steer", "JOY", "--dose", "1", "--stream", "mlp_out"), "unknown stream in this file"),
        (("--steer", "JOY", "--dose", "1", "--layers", "4"), "layer 4 does not exist"),
        (("--steer", "JOY", "--dose", "1", "--layers", "auto"), "trimtab sweep"),
        (("--steer", "FOREIGN:joy", "--dose", "1", "--layers", "1"), "no resid_post rows at layers [1]"),
        (("--steer", "JOY", "--dose", "1", "--positions", "al"), "Did you mean 'all'"),
        (("--steer", "JOY", "--dose", "1", "--positions", "{"), "not JSON"),
        (("--read", "JOY:grief"), "unknown concept 'grief'"),
        (("--plan", "none.yaml"), "no such plan"),
        (("--max-tokens", "0"), "max_tokens is at least 1"),
        (("--temperature", "-1"), "temperature is 0"),
        (("--messages", "[]"), "exactly one of --prompt"),
    ],
)
def test_refused_before_a_model_loads(refused, joy, foreign, no_model, flags, message):
    flags = [f.replace("JOY", str(joy)).replace("FOREIGN", str(foreign)) for f in flags]
    assert message in refused(*ASK, *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "exactly one of --prompt"),
        (("--prompt", " "), "the prompt is empty"),
        (("--messages", "[{"), "not JSON"),
        (("--messages", "none.json"), "none.json"),
        (("--messages", "[]"), "no messages"),
        (("--messages", '[{"role": "user"}]'), "a message is"),
        (("--messages", '[{"role": "system", "content": "x"}]', "--system", "y"), "leave --system out"),
    ],
)
def test_bad_prompts(refused, no_model, flags, message):
    assert message in refused(*GENERATE, *flags)


def test_damaged_vector_files(refused, joy, no_model):
    whole = joy.read_bytes()
    joy.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in refused(*ASK, "--steer", joy, "--dose", "1")
    text = joy.with_suffix(".txt")
    text.write_text("x")
    assert "not a vector file" in refused(*ASK, "--steer", text, "--dose", "1")


def test_a_vector_of_another_model(refused, joy, tmp_path, no_model):
    folder = tmp_path / "model"
    folder.mkdir()
    argv = ("generate", folder, "--prompt", "x", "--steer", joy, "--dose", "1")
    for config, message in (
        ({"num_hidden_layers": 4, "hidden_size": 64}, "has width 32"),
        ({"num_hidden_layers": 6, "hidden_size": 32}, "4 blocks (tiny)"),
    ):
        (folder / "config.json").write_text(json.dumps(config))
        assert message in refused(*argv) and "does not fit" in refused(*argv)


def test_a_prompt_longer_than_the_context(refused):
    message = refused(*GENERATE, "--prompt", "I feel " * 400)
    assert "the context of tiny is 512" in message


def test_a_dry_run_loads_nothing(trimtab, joy, no_model):
    done = trimtab(*ASK, "--steer", joy, "--dose", "0.5", "--layers", "50%", "--dry-run", "--json")
    assert done.record["placements"] == ["add joy at layer 2 of 4 (50 %)"]
    assert SteeringPlan.from_json(done.record["plan"]).placements[0].op.dose == 0.5
