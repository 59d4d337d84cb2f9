"""Which attention heads carry the concept at its layer, and how few of them.

From `head_out` (the heads' outputs side by side, [H * d_h]; under grouped queries these are the query heads):
Delta_h = mean(P) - mean(N) of head h; `raw_norm` = |Delta_h|; `selectivity` = |Delta_h| / sqrt(mean_j Var(N)_j).
`written` = (W_O^h Delta_h) . v is what head h adds along the direction, and `share` divides it by the sum over heads:
better than the raw norm, because W_O may null a head. Concentration is the raw norm of the top ten heads over that of
all; with H heads it is 10 / H when all are alike, and 1 for H <= 10, where it means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.errors import Unsupported
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.sites import Site

TOP = 10
#: A concept whose heads are more concentrated than this is steered more sparingly at the head.
CONCENTRATED = 0.5
#: Streams whose directions live in the residual stream, where a head's writing can be compared with them.
WRITTEN_TO = ("o", "attn_out", "resid_post")


@dataclass(frozen=True)
class Heads:
    """Figures per head; `share` sums to 1 (None where the direction does not live in the residual stream);
    `concentration` beside its `uniform` level; `strongest` is the head that writes most along the direction."""

    layer: int
    raw_norm: tuple[float, ...]
    selectivity: tuple[float, ...]
    written: tuple[float, ...] | None
    share: tuple[float, ...] | None
    concentration: float
    uniform: float
    top_share: float
    strongest: int
    concentrated: bool


def heads_of(
    unit: np.ndarray, site: Site, evidence: Evidence, count: int, output: np.ndarray | None
) -> Heads:
    """Of a direction at `site`, the evidence at its layer's head_out, and W_O [hidden, H * d_h] as it writes."""
    if evidence.width % count:
        raise Unsupported(
            f"head_out of {evidence.site} has width {evidence.width}, which {count} heads do not share evenly"
        )
    delta = (evidence.mean[POSITIVE] - evidence.mean[NEGATIVE]).reshape(count, -1)
    spread = np.sqrt(evidence.var[NEGATIVE].reshape(count, -1).mean(1))
    raw = np.linalg.norm(delta, axis=1)
    if raw.sum() == 0:
        raise Unsupported(f"no head of layer {site.layer} differs between the two sides")
    along = written_along(unit, site, delta, output)
    total = None if along is None else along.sum()
    share = None if along is None or not total else along / total
    concentration = float(np.sort(raw)[::-1][:TOP].sum() / raw.sum())
    by = np.abs(along) if along is not None else raw
    strongest = int(np.argmax(by))
    top_share = float(by[strongest] / by.sum()) if by.sum() else 0.0
    return Heads(
        layer=site.layer,
        raw_norm=_plain(raw),
        selectivity=_plain(np.divide(raw, spread, out=np.full(count, np.nan), where=spread > 0)),
        written=None if along is None else _plain(along),
        share=None if share is None else _plain(share),
        concentration=concentration,
        uniform=min(1.0, TOP / count),
        top_share=top_share,
        strongest=strongest,
        # Up to 2 * TOP heads the top ten hold half by themselves: there the strongest must do so alone.
        concentrated=(concentration if count > 2 * TOP else top_share) > CONCENTRATED,
    )


def written_along(
    unit: np.ndarray, site: Site, delta: np.ndarray, output: np.ndarray | None
) -> np.ndarray | None:
    """What each head's difference [H, d_h] adds along the direction [H]."""
    unit = np.asarray(unit, np.float64)
    if site.stream == "head_out":
        return (delta * unit.reshape(delta.shape)).sum(1)
    if site.stream not in WRITTEN_TO or output is None:
        return None
    return (delta * (unit @ output).reshape(delta.shape)).sum(1)


def _plain(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
