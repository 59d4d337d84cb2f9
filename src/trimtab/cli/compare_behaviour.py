"""`trimtab compare A B --model M --prompts FILE`: vectors by what they do at one dose, on one set of prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.records import finite

from .eval_steer_read import Crossed, crossed, table_of
from .frame import Desk
from .models import glance

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.evaluation.rollouts.compare import Difference

#: Flags that say how vectors are tried on a model.
NEEDS_MODEL = ("prompts", "steer_layer", "read_layer", "limit", "continue_to")


def check(flags: Mapping[str, Any], runs: bool) -> None:
    """What belongs together, before anything is loaded."""
    if flags["model"] is None:
        given = [f"--{k.replace('_', '-')}" for k in NEEDS_MODEL if flags[k] is not None]
        if given:
            raise InputError(f"{', '.join(given)} says how vectors are tried on a model; give --model too")
    elif runs:
        raise InputError("--model tries vectors; runs have their replies already")
    elif flags["prompts"] is None:
        raise InputError("--model tries vectors on prompts; give --prompts FILE too")


def behaviour(
    desk: Desk, loaded: Mapping[str, ConceptVectors], flags: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """The record and its tables: readings of every vector under every other, perplexity, paired differences."""
    from trimtab.evaluation.rollouts.compare import differences

    from . import steering

    model, engine = flags["model"], flags["engine"]
    seen = glance(model, engine)
    for reference, vectors in loaded.items():
        steering.check_fit(reference, vectors, seen, model)
    whole = (
        next(iter(loaded.values())).hash
        if len(loaded) == 1
        else ", ".join(v.hash[:8] for v in loaded.values())
    )
    done = crossed(desk, model, engine, seen.name, "vectors", loaded, whole, flags, plain_loss=True)
    losses, perplexity = _losses(done)
    pairs = differences(losses)
    for note in done.notes:
        desk.warn(note)
    record = {"behaviour": done.record, "perplexity": perplexity, "nll_differences": finite(pairs)}
    return record, [table_of(done.found), _table(perplexity, pairs)]


def _losses(done: Crossed) -> tuple[dict[str, dict[str, float]], dict[str, float | None]]:
    """Nats per token that the plain model spends on every reply, {vector: {item: nats}}, and each vector's perplexity,
    pooled over tokens."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in done.run.done.values():
        if row.get("kind") in ("plain", "steered") and row.get("plain_nll") is not None:
            rows.setdefault(row["concept"] or "plain", []).append(row)
    losses = {n: {r["item"]: float(r["plain_nll"]) for r in own} for n, own in rows.items()}
    pooled = {
        n: math.exp(sum(r["plain_nll"] * r["tokens"] for r in own) / sum(r["tokens"] for r in own))
        for n, own in rows.items()
    }
    return losses, {n: v if math.isfinite(v) else None for n, v in pooled.items()}


def _table(perplexity: Mapping[str, float | None], pairs: Sequence[Difference]) -> Any:
    """Every pair of vectors, and the plain model."""
    from rich.table import Table

    words = ", ".join(f"{n} {'–' if v is None else f'{v:.2f}'}" for n, v in perplexity.items())
    table = Table("one", "other", "other − one (nats per token)", "p", "p (Holm)", "items", box=None, pad_edge=False,
                  title=f"perplexity under the plain model: {words}", title_justify="left")  # fmt: skip
    for d in pairs:
        e = d.difference
        table.add_row(d.one, d.other, e.words("+.3g"), f"{d.p:.3g}", f"{d.p_holm:.3g}", str(e.n))
    return table
