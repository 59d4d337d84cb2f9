"""Load a model through mlx-lm: a local directory or a hub id, quantised or not; errors in words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import _download, load_model, load_tokenizer

from trimtab.engines.checkpoint import check_directory, revision_of
from trimtab.errors import FormatError, InputError, UnknownName

DTYPES = {
    "float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16,
    "fp32": mx.float32, "fp16": mx.float16, "bf16": mx.bfloat16,
}  # fmt: skip


def load(
    model: str | os.PathLike[str],
    *,
    dtype: str = "auto",
    device: str | None = None,
    revision: str | None = None,
) -> tuple[nn.Module, Any, dict[str, Any], str]:
    """(model, tokenizer, config, revision). `dtype` "auto" keeps the checkpoint's own; `device` is "cpu" or "gpu"."""
    name = os.fspath(model)
    if dtype not in ("auto", *DTYPES):
        raise UnknownName.of("dtype", dtype, ["auto", *DTYPES])
    if device not in (None, "cpu", "gpu"):
        raise UnknownName.of("mlx device", device, ["cpu", "gpu"])
    if device is not None:
        mx.set_default_device(mx.Device(mx.cpu if device == "cpu" else mx.gpu))
    check_directory(name)
    path = Path(name) if Path(name).exists() else Path(_download(name, revision=revision))
    try:
        found, config = load_model(path, model_config=_older_names(path))
        tokenizer = load_tokenizer(path, eos_token_ids=config.get("eos_token_id"))
    except (ValueError, KeyError, FileNotFoundError, RuntimeError) as error:
        raise FormatError(f"mlx-lm cannot load {name}: {error}") from error
    if dtype != "auto":
        found.set_dtype(DTYPES[dtype])
    if "num_hidden_layers" not in config and "text_config" in config:
        config = {**config, **config["text_config"]}
    if "num_hidden_layers" not in config:
        raise InputError(f"the config of {name} does not say num_hidden_layers; the mlx engine needs it")
    found.eval()
    return found, tokenizer, config, revision_of(os.fspath(path))


def _older_names(path: Path) -> dict[str, Any]:
    """What transformers 5 writes under new names, under the names that mlx-lm's models look for.

    Without this some refuse to load, and others fall back to a default rotary base without a word: every state would
    be wrong.
    """
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    if "num_local_experts" in config and "num_experts" not in config:
        found["num_experts"] = config["num_local_experts"]
    nested = config.get("rope_parameters")
    if not isinstance(nested, dict) or "rope_theta" in config:
        return found
    whole = nested.get("full_attention", nested)
    if "rope_theta" in whole:
        found["rope_theta"] = whole["rope_theta"]
    if whole.get("rope_type", "default") != "default":
        found["rope_scaling"] = whole
    if "sliding_attention" in nested:
        found["rope_local_base_freq"] = nested["sliding_attention"].get("rope_theta")
    return found
