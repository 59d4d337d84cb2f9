"""Load a checkpoint: a local directory or a hub id, its dtype, devices and quantisation; errors in words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import logging

from trimtab.engines.checkpoint import check_adapter, check_directory, revision_of
from trimtab.engines.transformers.adapters import merged
from trimtab.errors import FormatError, InputError, MissingDependency, UnknownName

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
QUANTIZATIONS = ("8bit", "4bit")


def load(
    model: str | os.PathLike[str],
    *,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    device_map: Any = None,
    quantization: str | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    adapter: str | os.PathLike[str] | None = None,
) -> tuple[Any, Any, str]:
    """(model, tokenizer, revision hash). `dtype` "auto" keeps the checkpoint's own, but float32 on a CPU. `adapter` is
    a PEFT folder, merged into the weights."""
    name = os.fspath(model)
    if dtype not in ("auto", *DTYPES):
        raise UnknownName.of("dtype", dtype, ["auto", *DTYPES])
    if device is not None and device_map is not None:
        raise InputError("give device or device_map, not both")
    check_directory(name)
    if adapter is not None:
        check_adapter(adapter, quantization)
    shared: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
    config = _read(name, lambda: AutoConfig.from_pretrained(name, **shared))
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options = dict(shared, device_map=device_map)
    if quantization is not None:
        options["quantization_config"] = _quantization(quantization)
        options["device_map"] = device_map or {"": target}
    on_cpu = device_map is None and target.type == "cpu"
    options["dtype"] = (torch.float32 if on_cpu else "auto") if dtype == "auto" else DTYPES[dtype]
    with _quiet():
        found = _read(name, lambda: _auto_class(config).from_pretrained(name, config=config, **options))
    if options["device_map"] is None:
        found = found.to(target)
    if tokenizer is None or isinstance(tokenizer, (str, os.PathLike)):
        place = name if tokenizer is None else os.fspath(tokenizer)
        tokenizer = _read(place, lambda: AutoTokenizer.from_pretrained(place, **shared))
    known = revision_of(name, getattr(config, "_commit_hash", None))
    if adapter is not None:
        found = merged(found, os.fspath(adapter))
        known += f"+{revision_of(os.fspath(adapter))}"
    return found.eval(), tokenizer, known


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the loader's own progress bar: whoever calls shows progress in their own way."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _auto_class(config: Any) -> Any:
    """The class for causal language models, or for the vision-language model around one."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    return AutoModelForImageTextToText if "ConditionalGeneration" in architecture else AutoModelForCausalLM


def _quantization(kind: str) -> Any:
    if kind not in QUANTIZATIONS:
        raise UnknownName.of("quantization", kind, QUANTIZATIONS)
    if find_spec("bitsandbytes") is None:
        raise MissingDependency(
            f"{kind} weights need bitsandbytes, which is not installed. Run: pip install bitsandbytes"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=kind == "8bit", load_in_4bit=kind == "4bit")


def _read(name: str, load: Any) -> Any:
    """Call a loader; what is wrong with the files becomes one sentence."""
    try:
        return load()
    except MissingDependency:
        raise
    except ImportError as error:
        raise MissingDependency(f"loading {name} needs a package that is not installed: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        kind = FormatError if Path(name).is_dir() else InputError
        raise kind(f"cannot load {name}: {first}") from error
    except Exception as error:  # safetensors and tokenizers raise errors of their own kinds on damaged files
        raise FormatError(f"cannot load {name}: {type(error).__name__}: {error}") from error


# --- local directories ------------------------------------------------------------------------------------------
