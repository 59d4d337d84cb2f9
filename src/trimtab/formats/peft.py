"""A vector as a PEFT adapter, where that is exact.

h + v for every token is a constant: no low-rank change of a weight is one, so a plain LoRA cannot hold it. PEFT's LoRA
with `lora_bias` can: with A = B = 0 it adds the bias of B, and nothing else, to what a linear layer puts out. On the
MLP's last projection that is what leaves the block, in models whose block ends in `residual + down_proj(...)`; where a
norm or a factor stands between (Gemma 2 and 3, OLMo 2, Granite) it is not, and is refused. The adapter acts on every
token, prompt and answer alike, at one strength, as a plan of `scale` would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError, Mismatch, Unsupported
from trimtab.formats.writing import replacing

#: Model types whose block output is its residual plus what `mlp.down_proj` puts out, unchanged.
EXACT = ("gemma", "llama", "mistral", "qwen2", "qwen3")


def save(vectors: ConceptVectors, path: Path, model: Path | str | None = None, scale: float = 1.0) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into the folder `path`.

    `model` is the base model's folder, whose config.json says whether the adapter is exact. `scale` is the total over
    the file's layers, as in a plan: each of n layers gets scale / n times its raw vector. One concept, `resid_post`.
    """
    from safetensors.numpy import save as to_bytes

    if model is None:
        raise InputError("a PEFT adapter belongs to one model: give model=FOLDER")
    if not np.isfinite(scale) or scale == 0:
        raise InputError(f"an adapter of scale {scale} does nothing; give a number other than 0")
    if path.is_file():
        raise InputError(f"a PEFT adapter is a folder, and {path} is a file")
    config = _config(Path(model))
    _check(vectors, config, Path(model))
    tensors: dict[str, np.ndarray] = {}
    modules = []
    for site in vectors.sites:
        module = f"model.layers.{site.layer}.mlp.down_proj"
        row = vectors.direction(None, site).raw * np.float32(scale / len(vectors.sites))
        modules.append(module)
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.zeros(
            (1, config["intermediate_size"]), np.float32
        )
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.zeros((len(row), 1), np.float32)
        tensors[f"base_model.model.{module}.lora_B.bias"] = row.astype(np.float32)
    adapter = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(model), "r": 1, "lora_alpha": 1,
        "lora_dropout": 0.0, "bias": "none", "lora_bias": True, "target_modules": modules, "inference_mode": True,
    }  # fmt: skip
    for name, data in (
        ("adapter_model.safetensors", to_bytes(tensors, metadata={"format": "pt"})),
        ("adapter_config.json", (json.dumps(adapter, indent=2) + "\n").encode()),
    ):
        with replacing(path / name) as temporary:
            temporary.write_bytes(data)


def _config(model: Path) -> dict[str, Any]:
    file = model / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{model} is no model folder: it has no config.json") from error
    except ValueError as error:
        raise FormatError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{file} is damaged: it does not hold an object")
    return found


def _check(vectors: ConceptVectors, config: Mapping[str, Any], model: Path) -> None:
    kind = config.get("model_type")
    if kind not in EXACT:
        raise Unsupported(
            f"no PEFT adapter adds a vector exactly to what leaves a block of a {kind!r} model; exact for: "
            f"{', '.join(EXACT)}. Steer it with the vector file itself"
        )
    if len(vectors.concepts) > 1:
        raise Unsupported(
            f"a PEFT adapter holds one concept: pick one with --concept ({', '.join(vectors.concepts)})"
        )
    other = [s.key for s in vectors.sites if s.stream != "resid_post"]
    if other:
        raise Unsupported(f"a PEFT adapter adds to block outputs only; it cannot hold {', '.join(other)}")
    depth, width = config.get("num_hidden_layers"), config.get("hidden_size")
    for site, table in vectors.tables.items():
        if not isinstance(depth, int) or site.layer >= depth or table.vectors.shape[1] != width:
            raise Mismatch(
                f"the vector at {site} is {table.vectors.shape[1]} wide, and {model} has {depth} blocks of width "
                f"{width}"
            )
