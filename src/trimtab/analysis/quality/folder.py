"""Files of a report: JSON, the page, and the folder of a readout set that other programs read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.analysis.quality.findings import QualityReport, SiteQuality
from trimtab.directions import ConceptVectors
from trimtab.errors import InputError
from trimtab.records import finite

READOUT = "readout.safetensors"
QUALITY = "quality.json"


@dataclass(frozen=True)
class Target:
    """Where a report goes; `page` None writes the JSON alone."""

    page: Path | None
    data: Path

    @classmethod
    def of(cls, given: str) -> Target:
        """`NAME.html` writes NAME.quality.json beside it, `NAME.json` the JSON alone, a folder both."""
        path = Path(given)
        if path.suffix in (".html", ".htm") and not path.is_dir():
            return cls(path, path.with_suffix(f".{QUALITY}"))
        if path.suffix == ".json" and not path.is_dir():
            return cls(None, path)
        if path.suffix and not path.is_dir():
            raise InputError(f"a report is FILE.html, FILE.json or a folder, got {given!r}")
        return cls(path / "report.html", path / QUALITY)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that will be written."""
        return (self.data,) if self.page is None else (self.page, self.data)


def write(report: QualityReport, target: Target) -> None:
    """The JSON and, where wanted, the page."""
    from trimtab.analysis.quality.page import page

    _put(target.data, json.dumps(report.record(), allow_nan=False, indent=1) + "\n")
    if target.page is not None:
        _put(target.page, page(report))


def write_readout(vectors: ConceptVectors, report: QualityReport, folder: Path) -> None:
    """`readout.safetensors` with its manifest `readout.json`, and `quality.json` per concept and layer."""
    vectors.save(folder / READOUT)
    _put(folder / QUALITY, json.dumps(finite(readout_quality(report)), allow_nan=False, indent=1) + "\n")


def readout_quality(report: QualityReport) -> dict[str, dict[str, dict[str, Any]]]:
    """concept -> site -> per_head (raw norms), head_concentration, subspace_eigvals (of the differences, uncentred),
    first_pc_ratio and k_signal_at_90pct; null, with a reason under `missing`, where a figure could not be had."""
    return {c: {r.site.key: _figures(r) for r in report.of(c)} for c in report.concepts}


def _figures(row: SiteQuality) -> dict[str, Any]:
    s, h = row.spectrum, row.heads
    return {
        "per_head": None if h is None else list(h.raw_norm),
        "head_concentration": None if h is None else h.concentration,
        "subspace_eigvals": None if s is None else list(s.eigenvalues),
        "first_pc_ratio": None if s is None else s.shape.first_pc_ratio,
        "k_signal_at_90pct": None if s is None else s.shape.k_signal_at_90pct,
        "missing": {part: why for part, why in row.missing.items() if part in ("spectrum", "heads")},
    }


def _put(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
