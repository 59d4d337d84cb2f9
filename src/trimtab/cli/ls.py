"""`trimtab ls`: the vector files of a folder and of the library, without reading their rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from trimtab.errors import InputError, TrimtabError

from . import library
from .frame import Desk, verb


@verb("ls")
@click.argument("folder", required=False, default=None)
@click.option("-r", "--recursive", is_flag=True, help="Look into folders inside it too (not hidden ones).")
@library.library_option
def ls(desk: Desk, folder: str | None, recursive: bool) -> None:
    """List vector files: concepts, sites, model and method.

    FOLDER is looked into; without one, this folder and the library.
    """
    places = [Path(folder)] if folder is not None else [Path(), library.folder()]
    if folder is not None and not places[0].is_dir():
        raise InputError(f"no such folder: {folder}; to look into a file: trimtab inspect {folder}")
    named = {p.resolve(): name for name, paths in library.entries().items() for p in paths}
    files: dict[Path, dict[str, Any]] = {}
    tensors = 0
    for path in (p for place in places if place.is_dir() for p in _walk(place, recursive)):
        if path.suffix in (".pt", ".pth"):
            tensors += 1
        elif path.resolve() not in files and (row := _row(path)) is not None:
            files[path.resolve()] = {"name": named.get(path.resolve()), **row}
    desk.result(
        {"library": str(library.folder()), "files": list(files.values()), "torch_files": tensors},
        text=_table(list(files.values()), places),
    )
    if tensors:
        desk.note(f"{tensors} .pt files not opened; trimtab convert FILE.pt OUT.safetensors reads one")


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    """Files in order of their names."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        yield from (Path(here) / n for n in sorted(names) if not n.startswith("."))


def _row(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; None for what is no vector file, a `problem` for one that cannot be read."""
    if path.suffix not in library.KINDS:
        return None
    try:
        return _native(path) if path.suffix == ".safetensors" else _gguf(path)
    except TrimtabError as error:
        if "not a control vector" in str(error):
            return None
        return {"path": str(path), "format": path.suffix[1:], "problem": str(error)}


def _gguf(path: Path) -> dict[str, Any]:
    from trimtab import formats

    vectors = formats.load(path)
    return {
        "path": str(path),
        "format": "gguf",
        "concepts": list(vectors.concepts),
        "sites": [s.key for s in vectors.sites],
        "model": vectors.origin.model or vectors.origin.parameters.get("model_hint"),
        "method": vectors.origin.method,
        "hash": vectors.hash,
    }


def _native(path: Path) -> dict[str, Any] | None:
    from trimtab.formats.native import glance
    from trimtab.sites import Site

    manifest = glance(path)
    if manifest is None:
        return None
    origin = manifest.get("origin") or {}
    sites = manifest.get("sites") or [{"layer": n} for n in manifest.get("layers") or []]
    return {
        "path": str(path),
        "format": "native",
        "concepts": list(manifest["concepts"]),
        "sites": [Site(s["layer"], s.get("stream", "resid_post")).key for s in sites],
        "model": origin.get("model"),
        "method": origin.get("method"),
        "hash": manifest.get("content_hash"),
    }


def _table(rows: list[dict[str, Any]], places: list[Path]) -> Any:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return f"no vector files in {' or '.join(map(str, places))}"
    table = Table("name", "file", "concepts", "sites", "model", "method", box=None, pad_edge=False)
    for row in rows:
        cells = (
            row["name"] or "",
            row["path"],
            *((row["problem"], "", "", "") if "problem" in row else (
                ", ".join(row["concepts"]), spans(row["sites"]), row["model"] or "?", row["method"] or "?"
            )),
        )  # fmt: skip
        table.add_row(*(Text(str(c), overflow="fold") for c in cells))
    return table


def spans(keys: list[str]) -> str:
    """Sites for a reader: "resid_post 1-4,7; mlp_out 3"."""
    from trimtab.sites import Site

    streams: dict[str, list[int]] = {}
    for site in map(Site.from_key, keys):
        streams.setdefault(site.stream, []).append(site.layer)
    return "; ".join(f"{stream} {_ranges(layers)}" for stream, layers in streams.items())


def _ranges(layers: list[int]) -> str:
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
