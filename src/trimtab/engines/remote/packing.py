"""Bodies of both directions: JSON and arrays in one safetensors body, and streams of such bodies.

The JSON is the entry "trimtab" of the body's metadata. In a stream every body follows its own length, 4 bytes little
endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from trimtab.errors import InputError

MEDIA = "application/vnd.trimtab.safetensors"
STREAM = "application/vnd.trimtab.stream"
_LENGTH, _HEADER = struct.Struct("<I"), struct.Struct("<Q")
Tensors = dict[str, np.ndarray]


def pack(head: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None) -> bytes:
    """One body."""
    from safetensors.numpy import save

    arrays = {k: np.ascontiguousarray(v) for k, v in (tensors or {}).items()}
    return save(arrays, metadata={"trimtab": json.dumps(head, separators=(",", ":"))})


def unpack(body: bytes) -> tuple[dict[str, Any], Tensors]:
    """(JSON, arrays) of a body; one that is malformed is an `InputError`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        (length,) = _HEADER.unpack_from(body)
        header = json.loads(body[_HEADER.size : _HEADER.size + length])
        head = json.loads(header["__metadata__"]["trimtab"])
        tensors = load(body)
    except (SafetensorError, struct.error, LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"not a safetensors body of trimtab: {type(error).__name__}: {error}") from error
    if not isinstance(head, dict):
        raise InputError(f"the JSON of a safetensors body is an object, got {type(head).__name__}")
    return head, tensors


def frame(head: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None) -> bytes:
    """One body of a stream, with its length in front."""
    body = pack(head, tensors)
    return _LENGTH.pack(len(body)) + body


def frames(pieces: Iterable[bytes]) -> Iterator[tuple[dict[str, Any], Tensors]]:
    """The bodies of a stream that comes in pieces of any size; what is cut off at the end is left out."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(held)
            end = _LENGTH.size + length
            if len(held) < end:
                break
            yield unpack(bytes(held[_LENGTH.size : end]))
            del held[:end]
