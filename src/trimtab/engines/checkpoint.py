"""A model directory before anything heavy loads it: what is wrong with it in words, and its revision."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

from trimtab.errors import FormatError, InputError


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


def revision_of(name: str, commit: str | None = None) -> str:
    """The hub commit, or a hash of the config and of what the weight files say of themselves (names, shapes, sizes)."""
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
