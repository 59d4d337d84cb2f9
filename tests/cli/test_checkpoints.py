"""The verbs on real checkpoints: a tiny one made on the spot, and the public one that the project's issue names."""

import json

import numpy as np
import pytest

from trimtab.directions import ConceptVectors

pytest.importorskip("transformers")
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Four random Llama blocks, one token per character, a ChatML template."""
    from engines.checkpoints import save_tiny_llama

    folder = save_tiny_llama(tmp_path_factory.mktemp("model") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return folder


@pytest.fixture(scope="module")
def happy(tiny, tmp_path_factory):
    """A vector file for it, written by the command line."""
    from trimtab.cli import main

    folder = tmp_path_factory.mktemp("vectors")
    data = folder / "happy.jsonl"
    data.write_text(
        "".join(
            json.dumps({"positive": f"{n} good day", "negative": f"{n} bad night"}) + "\n" for n in range(8)
        )
    )
    assert (
        main(["extract", str(tiny), "--data", str(data), "-o", str(folder / "v.safetensors"), "--quiet"]) == 0
    )
    return folder / "v.safetensors"


def plain_transformers(folder, prompt, tokens):
    """Greedy continuation by Transformers alone: (new tokens, their text)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
    new = out[0, ids.shape[1] :].tolist()
    return new, tokenizer.decode(new, skip_special_tokens=True)


def test_greedy_text_without_steering_is_that_of_plain_transformers(trimtab, tiny):
    record = trimtab("generate", tiny, "--prompt", "Once", "--max-tokens", "12", "--json").record
    tokens, text = plain_transformers(tiny, "Once", 12)
    generated = record["tokens"]
    assert generated == tokens[: len(generated)] and len(generated) >= len(tokens) - 1
    assert record["text"] == text


def test_extract_then_steer_and_read(trimtab, tiny, happy):
    found = ConceptVectors.load(happy)
    assert found.layers() == (0, 1, 2, 3) and found.origin.pooling == "mean_all"
    flags = ("generate", tiny, "--prompt", "Once", "--max-tokens", "6", "--read", happy, "--json")
    site = found.read_site()  # steered where it is read, the reading moves by exactly the dose
    steer = ("--steer", happy, "--dose", "0.5", "--layers", str(site.layer))
    plain, steered = (trimtab(*flags, *more).record for more in ((), steer))
    assert steered["steering_applied"]["dose"] == pytest.approx(0.5)
    assert steered["steering_applied"]["layers"] == [site.layer]
    push = 0.5 * found.typical_norms[site] / found.tables[site].std[0]
    first = [r["readings"]["values"][0][0][0] for r in (plain, steered)]
    assert first[1] - first[0] == pytest.approx(push, rel=1e-3)
    assert np.isfinite(steered["readings"]["values"]).all()


def test_chat_goes_through_the_template(trimtab, tiny, happy):
    flags = ("--max-tokens", "3", "--steer", happy, "--dose", "0.5", "--positions", "role=user", "--json")
    record = trimtab("generate", tiny, "--prompt", "Hello", "--system", "Be kind", *flags).record
    assert record["prompt"][0] == {"role": "system", "content": "Be kind"}
    assert record["steering_applied"]["tokens_steered"] == len("Hello")
    assert record["warnings"] == []


def test_answers_are_not_read_at_the_end_of_turn(trimtab, refused, tiny, tmp_path):
    def said(text):
        return [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": text}]

    rows = [{"positive": said(f"{n} yes"), "negative": said(f"{n} no")} for n in range(3)]
    data = tmp_path / "said.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    argv = ("extract", tiny, "--data", data, "--layers", "1", "-o", tmp_path / "v.safetensors")
    assert "last_content or mean_assistant" in refused(*argv, "--pooling", "last")
    assert trimtab(*argv, "--json").record["pooling"] == "mean_assistant"


def test_a_prompt_longer_than_the_context(refused, tiny):
    message = refused("generate", tiny, "--prompt", "x" * 600)
    assert "601 tokens" in message and "is 512" in message


def test_truncated_and_missing_weights(refused, tiny, tmp_path):
    import shutil

    folder = shutil.copytree(tiny, tmp_path / "copy")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "truncated" in refused("generate", folder, "--prompt", "x")
    weights.unlink()
    assert "no weights" in refused("generate", folder, "--prompt", "x")


def test_the_commands_on_a_public_checkpoint(trimtab, shared_models, shared_data, tmp_path):
    model = shared_models / "stories260K/hf"
    emotions, target = shared_data / "repe/emotions", tmp_path / "happy.safetensors"
    flags = ("--data", emotions / "happiness.json", "--negatives", emotions / "sadness.json")
    made = trimtab(
        "extract", model, *flags, "--method", "mean_diff", "--layers", "all", "-o", target, "--json"
    )
    assert made.record["sites"] == [f"layer_{n}" for n in range(5)]
    ask = ("generate", model, "--prompt", "Once upon a time", "--json")
    plain, steered = (trimtab(*ask, *more).record for more in ((), ("--steer", target, "--dose", "0.5")))
    tokens, text = plain_transformers(model, "Once upon a time", 64)
    assert (plain["tokens"], plain["text"]) == (tokens, text)
    assert steered["tokens"] != tokens and steered["steering_applied"]["dose"] == pytest.approx(0.5)
