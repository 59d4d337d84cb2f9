"""`--report`, `--as-readout` and `--exclude`: checked before a model loads, written and said after it has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError

from .frame import Desk
from .places import check_writable

if TYPE_CHECKING:
    from trimtab.analysis.quality.findings import QualityReport
    from trimtab.analysis.quality.folder import Target
    from trimtab.data.contrast import Contrast
    from trimtab.data.exclusion import Kept
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.recipes import Extraction


def excluded(contrasts: Sequence[Contrast], given: str | None) -> tuple[list[Contrast], Kept | None]:
    """The corpus without the examples of `--exclude`, and what is kept of it (None: everything)."""
    if given is None:
        return list(contrasts), None
    from trimtab.data.exclusion import exclude, ids_of, remaining

    kept = remaining(contrasts, ids_of(given))
    return exclude(contrasts, kept), kept


@dataclass(frozen=True)
class Wanted:
    """Where a report and a readout folder go; None where they were not asked for."""

    report: Target | None = None
    readout: Path | None = None

    @property
    def any(self) -> bool:
        """Whether a report must be made at all."""
        return self.report is not None or self.readout is not None

    @property
    def collect(self) -> dict[str, Any]:
        """What an extraction must keep for it."""
        if not self.any:
            return {}
        from trimtab.analysis.quality import BESIDE, NEEDS

        return {"needs": NEEDS, "beside": BESIDE}

    @classmethod
    def of(cls, report: str | None, readout: str | None = None, vectors: Path | None = None) -> Wanted:
        """Check both targets; a report never replaces the vector file `vectors` or its manifest."""
        if report is None and readout is None:
            return cls()
        from trimtab.analysis.quality.folder import QUALITY, READOUT, Target

        target = None if report is None else Target.of(report)
        folder = None if readout is None else Path(readout)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise InputError(f"--as-readout writes a folder, and {folder} is a file")
        taken = [] if vectors is None else [vectors, vectors.with_suffix(".json")]
        if folder is not None:
            taken += [folder / READOUT, (folder / READOUT).with_suffix(".json"), folder / QUALITY]
        for path in () if target is None else target.paths:
            if path in taken:
                raise InputError(f"--report {report} would replace {path}; give the report another name")
            check_writable(path)
        if folder is not None:
            check_writable(folder / QUALITY)
        return cls(target, folder)

    def assess(self, desk: Desk, full: Extraction, engine: Engine, kept: Kept | None) -> QualityReport:
        """The report on an extraction, with a bar."""
        from trimtab.analysis.quality import assess

        total = len(full.vectors.concepts) * len(full.vectors.sites)
        with desk.progress("assess", total) as bar:
            return assess(full, engine, kept=kept, seed=desk.seed, progress=lambda *_: bar.advance(1))

    def write(self, vectors: ConceptVectors, found: QualityReport) -> list[str]:
        """Write what was asked for; the paths."""
        from trimtab.analysis.quality.folder import write, write_readout

        paths: list[Path] = []
        if self.report is not None:
            write(found, self.report)
            paths += self.report.paths
        if self.readout is not None:
            write_readout(vectors, found, self.readout)
            paths.append(self.readout)
        return [str(p) for p in paths]

    def said(
        self, vectors: ConceptVectors, found: QualityReport | None, record: dict[str, Any], text: Any
    ) -> tuple[dict[str, Any], Any]:
        """A verb's record and text, with the report added once it is written."""
        if found is None:
            return record, text
        from rich.console import Group
        from rich.text import Text

        from trimtab.analysis.quality.table import render

        paths = self.write(vectors, found)
        first = Text(text) if isinstance(text, str) else text
        shown = Group(first, Text(), render(found), Text(f"report: {', '.join(paths)}"))
        return record | {"report": _summary(found, paths)}, shown


def _summary(found: QualityReport, paths: list[str]) -> dict[str, Any]:
    """The verdicts; everything else stands in the files."""
    return {
        "files": paths,
        "verdicts": {v.concept: v.words for v in found.verdicts},
        "judged_at": {v.concept: None if v.site is None else v.site.key for v in found.verdicts},
        "held_out_auc": {c: found.judged(c).auc for c in found.concepts},
        "reasons": {v.concept: list(v.reasons) for v in found.verdicts},
        "advice": {v.concept: list(v.advice) for v in found.verdicts},
        "notes": list(found.notes),
    }
