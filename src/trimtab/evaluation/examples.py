"""Examples of a curve: the same prompts below 0, untouched, and at the best dose, chosen by the rule of `triplets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.evaluation.curves import Curve, Point
from trimtab.evaluation.items import Item
from trimtab.evaluation.reporting.triplets import Said, Triplet, chosen
from trimtab.evaluation.samples import Record


def examples(
    curve: Curve, best: Point, rows: Mapping[str, Sequence[Record]], items: Sequence[Item]
) -> tuple[Triplet, ...]:
    """Items at `best`, at 0 and at its opposite (else at the lowest dose below 0, where there is one). `rows` are those
    of `measure` by condition; a score over continuations has no texts to show. None where `best` is dose 0."""
    plain = curve.plain
    if best.dose == 0 or not (best.finite and plain.finite):
        return ()
    below = [p for p in curve.points if p.dose < 0 and p.finite]
    minus = next((p for p in below if p.dose == -best.dose), below[0] if below else None)
    prompts = {i.id: _asked(i) for i in items}
    names = sorted(prompts)  # the order of a point's items
    effects = best.items - (plain if minus is None else minus).items
    texts = {p.dose: _firsts(p, rows) for p in (minus, plain, best) if p is not None}

    def said(p: Point, i: int) -> Said:
        return Said(p.dose, float(p.items[i]), texts[p.dose].get(names[i]))

    return tuple(
        Triplet(
            quantile, names[i], prompts[names[i]], float(effects[i]), len(names),
            None if minus is None else said(minus, i), said(plain, i), said(best, i),
        )
        for quantile, i in chosen(effects, names)
    )  # fmt: skip


def _asked(item: Item) -> str:
    return item.prompt if isinstance(item.prompt, str) else item.prompt[-1]["content"]


def _firsts(point: Point, rows: Mapping[str, Sequence[Record]]) -> dict[str, str | None]:
    """Item → the text of its first sample at a point. Rows are found by the plan; those of the plain model come before
    those of prompts, which have no plan either."""
    own = next(r for r in rows.values() if r[0]["fingerprint"] == point.fingerprint)
    return {r["item"]: r.get("text") for r in reversed(own)}
