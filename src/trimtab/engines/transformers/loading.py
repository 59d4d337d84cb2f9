"""Load a checkpoint: a local directory or a hub id, its dtype, devices and quantisation; errors in words."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import logging

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
) -> tuple[Any, Any, str]:
    """(model, tokenizer, revision hash). `dtype` "auto" keeps the checkpoint's own, but float32 on a CPU."""
    name = os.fspath(model)
    if dtype not in ("auto", *DTYPES):
        raise UnknownName.of("dtype", dtype, ["auto", *DTYPES])
    if device is not None and device_map is not None:
        raise InputError("give device or device_map, not both")
    _check_directory(name)
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
    return found.eval(), tokenizer, _revision(name, config)


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


def _check_directory(name: str) -> None:
    """Say what is wrong with a local directory before the loader does it in its own words."""
    path = Path(name)
    if not path.exists():
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise InputError(f"there is no model directory {name}")
        return
    if not path.is_dir():
        raise InputError(f"{name} is a file; a model is a directory with config.json, or a hub id")
    config = path / "config.json"
    if not config.is_file():
        raise FormatError(f"{name} has no config.json: it is not a Hugging Face model directory")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{config} is not JSON ({error}); download it again") from error
    weights = sorted(path.glob("*.safetensors"))
    index = path / "model.safetensors.index.json"
    if index.is_file():
        weights = sorted({path / f for f in json.loads(index.read_text())["weight_map"].values()})
    if not weights and not list(path.glob("*.bin")):
        raise FormatError(f"{name} holds no weights (*.safetensors); download it again")
    for file in weights:
        _check_safetensors(file)


def _check_safetensors(file: Path) -> None:
    """Compare a file's length with what its header promises."""
    if not file.is_file():
        raise FormatError(f"{file} is missing, though the index names it; download it again")
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length + 8 > size:
            raise FormatError(f"{file} is truncated or no safetensors file ({size} bytes); download it again")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise FormatError(f"{file} has a damaged header; download it again") from error
    ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise FormatError(f"{file} is truncated: {size} bytes of {expected}; download it again")


def _revision(name: str, config: Any) -> str:
    """The hub commit, or a hash of the config and of what the weight files say of themselves (names, shapes, sizes)."""
    commit = getattr(config, "_commit_hash", None)
    if commit:
        return str(commit)[:16]
    digest = hashlib.sha256()
    path = Path(name)
    for file in [path / "config.json", *sorted(path.glob("*.safetensors*"))]:
        if not file.is_file():
            continue
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
            if file.stat().st_size > 1 << 17:
                stream.seek(-(1 << 16), os.SEEK_END)
                digest.update(stream.read())
    return digest.hexdigest()[:16]
