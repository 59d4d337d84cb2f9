"""Erasure (LEACE, arXiv 2306.03819): e(h) = h - d (r.(h - mean)) / (r.d), for d = mean(P) - mean(N), r = S^+ d.

S is the covariance of all rows and S^+ its pseudo-inverse. Of the maps after which no linear classifier does
better than chance, e changes h least: it whitens, projects off the whitened d and unwhitens, which reads along r
and writes along d. A Direction is one row, and `Ablate` reads and writes along the same one, u. What that leaves
of the difference is d - (d.u) u: nothing exactly where u is d. So:

`row` "write" (the default) is d: ablating it erases all linear trace of the two sides, with more change than e.
`row` "read" is r: the one coordinate that holds the trace, with the bias that puts 0 at the mean; ablating it is
not an erasure. `overlap` in the provenance is cos(r, d), 1 where ablation is e itself. `eraser` gives r, d and
mean, for whoever applies e to arrays. Raw norm: what the sides differ by along the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.method import Method, mean_difference
from trimtab.extraction.sample import steering_length

ROWS = ("write", "read")


@dataclass(frozen=True)
class Leace(Method):
    """Rows are kept for r, which is a least-squares solution: n x width x the smaller of both."""

    name: ClassVar[str] = "leace"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "rows"})
    signed: ClassVar[bool] = True

    row: Literal["write", "read"] = "write"

    def __post_init__(self) -> None:
        if self.row not in ROWS:
            raise InputError(f"leace stores the row 'write' or 'read', got row={self.row!r}")

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        read, write, mean = eraser(evidence)
        size = float(np.linalg.norm(read) * np.linalg.norm(write))
        if size == 0:
            raise InputError(
                f"the two sides of {name!r} have the same mean at {evidence.site}: there is no linear trace to "
                "erase; check that the texts differ"
            )
        known: dict[str, Any] = {"overlap": float(read @ write) / size}
        if self.row == "read":
            known["bias"] = -float(read @ mean) / float(np.linalg.norm(read))
        row = write if self.row == "write" else read
        return steering_length(evidence, row, name, self.name), known


def eraser(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(read, write, mean), each [width] float64, of the least edit h - write * (read.(h - mean)) that erases."""
    evidence.require("rows")
    assert evidence.rows is not None
    rows = np.concatenate([evidence.rows[POSITIVE], evidence.rows[NEGATIVE]])
    mean = rows.mean(0)
    shares = [1 / evidence.count[POSITIVE], -1 / evidence.count[NEGATIVE]]
    labels = np.repeat(shares, [evidence.count[POSITIVE], evidence.count[NEGATIVE]])
    # d = X.T labels for centred X, so that S^+ d = n X^+ labels: the shortest least-squares solution.
    read = np.linalg.lstsq(rows - mean, labels, rcond=None)[0]
    write = mean_difference(evidence)
    along = float(read @ write)
    return (read / along if along else read), write, mean
