"""Tensors saved by torch, opened without running anything: `weights_only=True`, always.

A pickle can hold any program, so a file that needs more than tensors and plain containers is refused, with the line
that turns it into one that does not, to be run by somebody who trusts it.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.errors import FormatError, MissingDependency

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)|Unsupported operand|Can only build Tensor")
_PCA = re.compile(r"layer(\d+)_pos.*\.pt")


def read(path: Path) -> Any:
    """The file's content, with every tensor a float64 array and containers as they are."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependency.of("torch", "hf", f"reading {path.name}") from error
    if not path.is_file():
        raise FormatError(f"{path} is not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; what matters raises
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = _GLOBAL.search(str(error))
        if match is None:
            raise FormatError(f"{path} is damaged, or not a file saved by torch") from error
        raise FormatError(_refusal(path, match[1] or match[2] or "objects")) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is damaged, or not a file saved by torch: {error}") from error
    return _plain(found, path.name, torch)


def _plain(value: Any, where: str, torch: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.is_sparse or value.is_quantized or value.is_complex() or value.device.type == "meta":
            raise FormatError(
                f"{where} is a {value.dtype} tensor that is sparse, quantised, complex or empty"
            )
        return value.detach().double().numpy()
    if isinstance(value, Mapping):
        return {k: _plain(v, f"{where}[{k!r}]", torch) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]", torch) for i, v in enumerate(value)]
    return value


def _refusal(path: Path, needs: str) -> str:
    """Why the file is not opened, and the line that mends it."""
    trust = f"{path} holds {needs}, and opening it would run code: it is refused. If you trust it, write its tensors:\n"
    if match := _PCA.fullmatch(path.name):
        return (
            f"{trust}  import torch; d = torch.load({str(path)!r}, weights_only=False); n = 0  # which component\n"
            f"  v = d['pca'].components_[n] * getattr(d.get('scaler'), 'scale_', 1)  # undo the scaler's units\n"
            f"  torch.save(torch.as_tensor(v), 'component.pt')\n"
            f"then: trimtab convert component.pt -o NAME.safetensors --layer {int(match[1])} --convention output"
        )
    if "steering_vector" in needs:
        return (
            f"{trust}  import torch, trimtab.formats as f; "
            f"f.from_object(torch.load({str(path)!r}, weights_only=False)).save('NAME.safetensors')"
        )
    return (
        f"{trust}  import torch; d = torch.load({str(path)!r}, weights_only=False)\n"
        "  torch.save(d['the key of the vector'].detach().cpu(), 'vector.pt')"
    )


def describe(value: Any) -> str:
    """A short account of what a file holds, for messages."""
    if isinstance(value, np.ndarray):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, Mapping):
        return "keys " + ", ".join(f"{k!r}" for k in list(value)[:20]) if value else "no keys"
    return f"a {type(value).__name__}"
