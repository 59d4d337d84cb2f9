"""A PEFT adapter merged into the weights: it computes what PEFT computes, and one that does not fit is refused."""

import json

import numpy as np
import pytest

pytest.importorskip("peft", reason="needs peft: pip install 'trimtab[dev]'")
pytestmark = pytest.mark.engine

from engines.checkpoints import save_tiny_llama  # noqa: E402
from trimtab.engines import load_engine  # noqa: E402
from trimtab.engines.requests import ScoreRequest  # noqa: E402
from trimtab.errors import FormatError, Mismatch, Unsupported  # noqa: E402


def save_adapter(path, folder, **changes):
    """A LoRA of random weights on the model of a folder; PEFT's own model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], **changes}
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(**settings)).eval()
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    wrapped.save_pretrained(path)
    return wrapped


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


def last(engine, text="a b"):
    return engine.score([ScoreRequest(engine.encode(text, bare=True), logprobs="last")])[0].distribution


def test_a_merged_adapter_is_peft_s_model(model, tmp_path):
    import torch

    wrapped = save_adapter(tmp_path / "lora", model)
    plain, tuned = load_engine(model), load_engine(model, adapter=tmp_path / "lora")
    tokens = plain.encode("a b", bare=True).tokens
    with torch.no_grad():
        truth = torch.log_softmax(wrapped(torch.tensor([list(tokens)])).logits[0, -1].double(), -1).numpy()
    np.testing.assert_allclose(last(tuned), truth, atol=1e-5)
    assert np.abs(last(plain) - truth).max() > 1e-2  # it does something
    assert tuned.info.revision.startswith(f"{plain.info.revision}+")
    assert type(tuned.model) is type(plain.model)


def test_an_adapter_that_does_not_fit_is_refused(model, tmp_path):
    """PEFT warns of weights that it cannot place, and runs the plain model."""
    from safetensors.numpy import load_file, save_file

    save_adapter(tmp_path / "lora", model)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({k.replace("q_proj", "k_proj"): v for k, v in weights.items()}, file)
    with pytest.raises(Mismatch, match="does not fit"):
        load_engine(model, adapter=tmp_path / "lora")
    save_file({k: v[:, :-1] if "lora_A" in k else v for k, v in weights.items()}, file)
    with pytest.raises(Mismatch, match="does not fit"):
        load_engine(model, adapter=tmp_path / "lora")
    with pytest.raises(FormatError, match="no PEFT adapter"):
        load_engine(model, adapter=model)
    with pytest.raises(Unsupported, match="4bit"):
        load_engine(model, adapter=tmp_path / "lora", quantization="4bit")


def test_another_adapter_is_another_revision(model, tmp_path):
    save_adapter(tmp_path / "lora", model)
    config = tmp_path / "lora" / "adapter_config.json"
    first = load_engine(model, adapter=tmp_path / "lora").info.revision
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 8}))
    assert load_engine(model, adapter=tmp_path / "lora").info.revision != first
