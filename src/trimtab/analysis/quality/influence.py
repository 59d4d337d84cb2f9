"""Which pairs (or texts) bend the vector: leave one out, and see how far it turns and what the held-out AUC does.

For the plain mean difference every leave-one-out vector is exact without a refit, (n v - d_i) / (n - 1) for pairs.
Other methods are refitted without the examples that turn the mean difference most, a bounded number.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.quality.heldout import LEFT_OUT, Scores, auc, cross_scores
from trimtab.analysis.quality.samples import Sample
from trimtab.data.contrast import Contrast, Item, shown
from trimtab.data.exclusion import identity
from trimtab.errors import InputError
from trimtab.extraction import make
from trimtab.extraction.method import Method

REFITS = 48
SHOWN = 10
AUC_REFITS = 6


@dataclass(frozen=True)
class Example:
    """One pair or text: `turn` is 1 - cosine of the vectors with and without it; `lead` its held-out margin (a pair's
    P - N, a text's distance to the other side's mean, in units of their spread; negative is on the wrong side);
    `auc_without` the held-out AUC of everything else, where it was computed. `id` is what --exclude takes."""

    id: str
    text: str
    turn: float
    lead: float | None
    auc_without: float | None = None


@dataclass(frozen=True)
class Influence:
    """The examples that matter most, strongest turn first; `how` says how the turns were found, `typical` is the median
    turn, `auc` the held-out AUC with all of them."""

    examples: tuple[Example, ...]
    how: str
    typical: float
    auc: float | None


def influence(
    sample: Sample,
    method: Method,
    contrast: Contrast,
    scores: Scores | None,
    judge: bool = False,
    kept: Mapping[str, Sequence[int]] | None = None,
) -> Influence:
    """`scores` are the held-out projections; with `judge` the AUC is computed again without each suspect; `kept` has
    the numbers, per side, under which the examples stand in the whole corpus."""
    if len(sample.positive) < 3 or (not sample.paired and len(sample.negative) < 3):
        raise InputError("leave one out needs at least three examples on a side")
    turns, how = _turns(sample, method)
    leads = None if scores is None else _leads(sample, scores)
    known = np.flatnonzero(np.isfinite(turns))
    order = known[np.argsort(-turns[known], kind="stable")]
    chosen = list(order[:SHOWN])
    if leads is not None:  # those that stand furthest on the wrong side, too
        chosen += [i for i in np.argsort(leads)[: SHOWN // 2] if leads[i] < 0 and i not in chosen]
    without = {} if scores is None or not judge else _without(sample, method, scores, chosen[:AUC_REFITS])
    return Influence(
        examples=tuple(
            Example(
                id=_identity(sample, contrast, i, kept),
                text=_text(sample, contrast, i),
                turn=float(turns[i]),
                lead=None if leads is None else float(leads[i]),
                auc_without=without.get(int(i)),
            )
            for i in chosen
        ),
        how=how,
        typical=float(np.median(turns[known])),
        auc=None if scores is None else auc(sample, scores),
    )


def _turns(sample: Sample, method: Method) -> tuple[np.ndarray, str]:
    """1 - cosine for every example (NaN where it was not refitted), and how."""
    exact = _mean_turns(sample)
    if method == make("mean_diff"):
        return exact, f"closed form for all {len(exact)}"
    if not method.learns:
        raise InputError(f"{method.name} does not look at the data: no example bends it")
    units = len(exact)
    chosen = np.argsort(-exact, kind="stable")[:REFITS]
    turns = np.full(units, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = sample.fit(method, sample.positive, sample.negative)
        for i in chosen:
            left = sample.fit(method, *sample.sides(_mask(sample, int(i))))
            turns[i] = 1 - whole @ left
    return turns, f"refitted without each of {len(chosen)} of {units}"


def _mean_turns(sample: Sample) -> np.ndarray:
    """Exact turns of the mean difference, one per pair or per text (positives first)."""
    p, q = sample.rows[sample.positive], sample.rows[sample.negative]
    n, m = len(p), len(q)
    whole = p.mean(0) - q.mean(0)
    if sample.paired:
        left = (n * whole - (p - q)) / (n - 1)
    else:
        left = np.concatenate([whole - (p - p.mean(0)) / (n - 1), whole + (q - q.mean(0)) / (m - 1)])
    size = np.linalg.norm(left, axis=1) * np.linalg.norm(whole)
    return 1 - left @ whole / np.where(size > 0, size, 1.0)


def _mask(sample: Sample, i: int) -> np.ndarray:
    """Rows that stay when example i goes."""
    keep = np.ones(len(sample.rows), bool)
    keep[[i, i + sample.positives] if sample.paired else [i]] = False
    return keep


def _leads(sample: Sample, scores: Scores) -> np.ndarray:
    """Margin of every example in units of the spread of margins."""
    a, b = scores.values[sample.positive], scores.values[sample.negative]
    lead = a - b if sample.paired else np.concatenate([a - b.mean(), a.mean() - b])
    spread = lead.std()
    return lead / (spread if spread > 0 else 1.0)


def _without(sample: Sample, method: Method, scores: Scores, chosen: list[int]) -> dict[int, float]:
    """Held-out AUC, in the same folds, of the data without each example."""
    found = {}
    for i in chosen:
        fold = np.where(_mask(sample, int(i)), scores.fold, LEFT_OUT)
        try:
            found[int(i)] = auc(sample, cross_scores(sample, method, fold))
        except InputError:
            continue  # the method cannot be fitted to what is left of a fold's training part
    return found


def _identity(sample: Sample, contrast: Contrast, i: int, kept: Mapping[str, Sequence[int]] | None) -> str:
    side, number = _place(sample, i)
    if kept is not None:
        number = kept[side or "positive"][number]
    return identity(contrast.concept, side, number)


def _text(sample: Sample, contrast: Contrast, i: int) -> str:
    side, number = _place(sample, i)
    if side is None:
        a, b = _where_they_differ(contrast.positive[number], contrast.negative[number])
        return f"{shown(a)} against {shown(b)}"
    return shown(getattr(contrast, side)[number])


def _where_they_differ(a: Item, b: Item) -> tuple[Item, Item]:
    """Of two conversations the first turns that are not the same (the persona, say): the last are often equal."""
    if isinstance(a, str) or isinstance(b, str):
        return a, b
    for first, second in zip(a, b):
        if first["content"] != second["content"]:
            return first["content"], second["content"]
    return a, b


def _place(sample: Sample, i: int) -> tuple[str | None, int]:
    """Side (None for a pair) and index within it."""
    if sample.paired:
        return None, int(i)
    return ("positive", int(i)) if i < sample.positives else ("negative", int(i) - sample.positives)
