"""PEFT adapters: exact where they are written, refused elsewhere."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import worlds
from trimtab import formats
from trimtab.directions import ConceptVectors, Direction
from trimtab.errors import FormatError, InputError, Mismatch, Unsupported
from trimtab.sites import Site

CONFIG = {"model_type": "llama", "num_hidden_layers": 10, "hidden_size": 24, "intermediate_size": 40}


@pytest.fixture
def model(tmp_path):
    """A model folder of which only the configuration matters."""
    return folder(tmp_path / "model", CONFIG)


def folder(path, config):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def joy(**kwargs):
    return worlds.vectors(("joy",), **kwargs)


def test_what_is_written(model, tmp_path):
    file = joy()
    formats.save(file, tmp_path / "a", format="peft", model=model, scale=6.0)
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["lora_bias"] is True and config["lora_alpha"] == config["r"]
    assert config["target_modules"] == [f"model.layers.{n}.mlp.down_proj" for n in (2, 5, 6)]
    for n in (2, 5, 6):
        name = f"base_model.model.model.layers.{n}.mlp.down_proj"
        assert (
            tensors[f"{name}.lora_A.weight"].shape == (1, 40) and not tensors[f"{name}.lora_A.weight"].any()
        )
        assert (
            tensors[f"{name}.lora_B.weight"].shape == (24, 1) and not tensors[f"{name}.lora_B.weight"].any()
        )
        assert np.allclose(tensors[f"{name}.lora_B.bias"], 2 * file.direction("joy", Site(n)).raw)


@pytest.mark.parametrize("kind", ["gemma2", "olmo2", "granite", "gpt2", None])
def test_where_it_would_not_be_exact(tmp_path, kind):
    with pytest.raises(Unsupported, match="no PEFT adapter adds a vector exactly"):
        formats.save(
            joy(), tmp_path / "a", "peft", model=folder(tmp_path / "m", CONFIG | {"model_type": kind})
        )
    assert not (tmp_path / "a").exists()


def test_refusals(model, tmp_path):
    target = tmp_path / "a"
    for file, options, error, message in (
        (joy(), {}, InputError, "give model=FOLDER"),
        (joy(), {"model": tmp_path}, FormatError, "no config.json"),
        (joy(), {"model": model, "scale": 0.0}, InputError, "does nothing"),
        (joy(), {"model": model, "scale": float("nan")}, InputError, "does nothing"),
        (worlds.vectors(), {"model": model}, Unsupported, "one concept.*joy, calm"),
        (joy(layers=(10,)), {"model": model}, Mismatch, "10 blocks of width 24"),
        (joy(width=16), {"model": model}, Mismatch, "is 16 wide"),
        (ConceptVectors.from_directions([Direction("a", Site(1, "o"), np.eye(24)[0])]), {"model": model}, Unsupported,
         "block outputs only"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            formats.save(file, target, "peft", **options)
    target.write_text("x")
    with pytest.raises(InputError, match="is a file"):
        formats.save(joy(), target, "peft", model=model)


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_peft_adds_exactly_the_vector(tmp_path, kind):
    """PEFT's model against hooks that add the vector; the difference is the vector, at its block and no earlier."""
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'trimtab[dev]'")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, num_hidden_layers=4, hidden_size=24, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2,
        head_dim=6, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    plain = AutoModelForCausalLM.from_config(config).eval()
    plain.save_pretrained(tmp_path / "model")
    file = joy(layers=(1, 2))
    formats.save(file, tmp_path / "adapter", "peft", model=tmp_path / "model", scale=1.0)
    tokens = torch.tensor([[3, 9, 27, 31, 7]])

    def run(wrapped, add):
        seen, handles = {}, []
        for n, block in enumerate(plain.model.layers):

            def hook(_, __, out, n=n):
                state = (out[0] if isinstance(out, tuple) else out) + add.get(n, 0)
                seen[n] = state.detach().clone()
                return (state, *out[1:]) if isinstance(out, tuple) else state

            handles.append(block.register_forward_hook(hook))
        with torch.no_grad():
            seen["logits"] = wrapped(tokens).logits
        for handle in handles:
            handle.remove()
        return seen  # fmt: skip

    halves = {n: torch.tensor(file.direction("joy", Site(n)).raw / 2) for n in (1, 2)}
    before, hooked = run(plain, {}), run(plain, halves)
    adapted = run(peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval(), {})
    assert torch.equal(adapted[0], before[0])
    assert torch.allclose(adapted[1] - before[1], halves[1].expand_as(before[1]), atol=1e-5)
    for n in (1, 2, 3, "logits"):
        assert torch.allclose(adapted[n], hooked[n], rtol=1e-4, atol=1e-5), n
    assert not torch.allclose(adapted["logits"], before["logits"], atol=1e-2)
