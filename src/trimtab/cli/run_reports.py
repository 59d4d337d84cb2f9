"""What a finished run leaves for readers in its folder, and how a vector is named there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.sites import Site

from .frame import Desk
from .models import layer_words
from .runs import Run

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.evaluation.reporting.folder import Report


def keep(desk: Desk, run: Run, figures: Mapping[str, Any], report: Report) -> str:
    """Write metrics.json, report.html, the tables and the card into the run folder; the page's path."""
    run.metrics(figures)
    page, *others = report.write(run.folder)
    names = ", ".join(sorted(path.rpartition("/")[2] for path in others))
    desk.note(f"report: {page} (beside it {names})")
    return page


def made_by(vectors: ConceptVectors) -> str:
    """The extraction method that a file names."""
    return vectors.origin.method or "not said by the file"


def where(layers: Sequence[int], depth: int, stream: str = "resid_post") -> str:
    """Layers in words: one, or several that share each strength."""
    words = ", ".join(layer_words(n, depth) for n in layers)
    return words + ("" if stream == "resid_post" else f" {stream}")


def sites(layers: Sequence[int], stream: str = "resid_post") -> list[Site]:
    """Their sites."""
    return [Site(n, stream) for n in layers]
