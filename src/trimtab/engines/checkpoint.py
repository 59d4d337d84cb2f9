"""A model directory before anything heavy loads it: what is wrong with it in words, and its revision."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trimtab.errors import FormatError, InputError, MissingDependency, Unsupported


def check_directory(name: str) -> None:
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
    _header(file)


def _header(file: Path) -> dict[str, Any]:
    """What a file says of its tensors, once its length is what that promises."""
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
    return {k: v for k, v in header.items() if k != "__metadata__"}


def parameters_of(folder: str | os.PathLike[str]) -> int | None:
    """How many numbers the safetensors files of an adapter or a model hold; None where there are none, or where they
    are packed (quantised weights store several in one integer)."""
    tensors = [t for file in sorted(Path(folder).glob("*.safetensors")) for t in _header(file).values()]
    if not tensors or any(t["dtype"] not in ("F64", "F32", "F16", "BF16") for t in tensors):
        return None
    return sum(math.prod(t["shape"]) for t in tensors)


def is_adapter(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (Path(folder) / "adapter_config.json").is_file()


def check_adapter(folder: str | os.PathLike[str], quantization: str | None = None) -> None:
    """Refuse early what cannot be merged."""
    if not is_adapter(folder):
        raise FormatError(f"{os.fspath(folder)} has no adapter_config.json: it is no PEFT adapter")
    if quantization is not None:
        raise Unsupported(
            f"an adapter cannot be merged into {quantization} weights; load them as they were trained"
        )
    if find_spec("peft") is None:
        raise MissingDependency(
            f"the adapter {Path(folder).name} needs peft, which is not installed. Run: pip install peft"
        )


def revision_of(name: str, commit: str | None = None) -> str:
    """The hub commit, or a hash of the config and of what the weight files say of themselves (names, shapes, sizes)."""
    if commit:
        return str(commit)[:16]
    digest = hashlib.sha256()
    path = Path(name)
    for file in [path / "config.json", path / "adapter_config.json", *sorted(path.glob("*.safetensors*"))]:
        if not file.is_file():
            continue
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
            if file.stat().st_size > 1 << 17:
                stream.seek(-(1 << 16), os.SEEK_END)
                digest.update(stream.read())
    return digest.hexdigest()[:16]
