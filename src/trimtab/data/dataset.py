"""Data sets saved with Hugging Face's `datasets` (`save_to_disk`), and single Parquet or Arrow files.

Columns are positive and negative (with concept and group where there are), or statement (or text) and label. The
Arrow files are read with pyarrow alone; no code of the data set runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.data import labelled, pairs
from trimtab.data.contrast import Contrast
from trimtab.data.options import Options
from trimtab.data.reading import json_of
from trimtab.errors import FormatError, InputError, MissingDependency

OPTIONS: frozenset[str] = frozenset()
SUFFIXES = (".parquet", ".arrow")


def claims(path: Path) -> bool:
    """A folder that save_to_disk wrote (one split or several), a folder of Parquet files, or one such file."""
    if path.is_file():
        return path.suffix in SUFFIXES
    named = ("state.json", "dataset_dict.json")
    return any((path / n).is_file() for n in named) or any(path.glob("*.parquet"))


def load(path: Path, options: Options) -> list[Contrast]:
    """Pairs or labelled statements, by the columns."""
    place, notes = _split(path)
    rows = [(f"{path} row {i}", row) for i, row in enumerate(_rows(place), start=1)]
    if not rows:
        raise InputError(f"{path} is empty: it holds no rows")
    columns = set(rows[0][1])
    if {"positive", "negative"} <= columns:
        kept = [(w, {k: v for k, v in r.items() if k in pairs.KEYS and v is not None}) for w, r in rows]
        return pairs.contrasts_of(kept, path, notes)
    if "label" in columns:
        found = labelled.contrasts_of(rows, path, columns)
        return [found[0].noted(notes), *found[1:]]
    raise FormatError(
        f"{path} needs the columns positive and negative, or text and label; it has {', '.join(sorted(columns))}"
    )


def _split(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The split to read: train, or the only one; anything else is asked for by name."""
    if not (path / "dataset_dict.json").is_file():
        return path, ()
    splits = json_of(path / "dataset_dict.json").get("splits", [])
    if "train" in splits:
        others = [s for s in splits if s != "train"]
        note = f"reading the split train of {path.name}; not {', '.join(others)}"
        return path / "train", (note,) if others else ()
    if len(splits) != 1:
        raise InputError(f"{path} has the splits {', '.join(splits)}: name the folder of one of them")
    return path / splits[0], ()


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    state = place / "state.json"
    if state.is_file():  # cache-*.arrow files may lie beside the data, so the state says which are the data
        return [place / entry["filename"] for entry in json_of(state).get("_data_files", [])]
    return sorted(place.glob("*.parquet"))


def _rows(place: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa  # type: ignore[import-not-found]
        import pyarrow.parquet as parquet  # type: ignore[import-not-found]
    except ImportError:
        raise MissingDependency.of("pyarrow", "datasets", f"reading the data set {place}") from None
    for file in _files(place):
        try:
            if file.suffix == ".parquet":
                table = parquet.read_table(file)
            else:
                with pa.memory_map(str(file)) as stream:
                    table = pa.ipc.open_stream(stream).read_all()
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{file} is damaged or is not {file.suffix}: {error}") from error
        yield from table.to_pylist()
