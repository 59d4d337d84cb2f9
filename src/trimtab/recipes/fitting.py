"""From evidence to directions that say where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_hash, questions_hash
from trimtab.directions import Direction, Origin
from trimtab.evidence import Evidence
from trimtab.extraction.method import ExtractionWarning, Method
from trimtab.recipes.neutral import IN_A_CHAT, NORMS_OF, NeutralStates
from trimtab.recipes.reading import Reading
from trimtab.sites import ModelInfo, Site

#: Poolings over every token, among which are those that are read: no other read position needs a mention.
EVERY_TOKEN = {"mean_all", "mean_assistant"}


def fit_all(
    method: Method, contrasts: Sequence[Contrast], evidence: Sequence[Mapping[Site, Evidence]]
) -> list[Direction]:
    """Every concept at every site; a warning that several fits gave is given once, with where."""
    directions: list[Direction] = []
    said: dict[str, list[str]] = {}
    names = [c.concept for c in contrasts]
    for site in evidence[0]:
        fitted = method.fit_site([part[site] for part in evidence], names)
        for name in names:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                directions.append(next(fitted))
            for w in caught:
                said.setdefault(str(w.message), []).append(f"{name!r} at {site}")
    for message, places in said.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        warnings.warn(f"{message} ({places[0]}{more})", ExtractionWarning, stacklevel=3)
    return directions


def described(
    directions: Sequence[Direction], contrasts: Sequence[Contrast], neutral: NeutralStates
) -> Iterator[Direction]:
    """Directions with the mean, std and typical norm measured on neutral states."""
    order = {c.concept: i for i, c in enumerate(contrasts)}
    for d in directions:
        row = order[d.name]
        yield dataclasses.replace(
            d,
            mean=float(neutral.mean[d.site][row]),
            std=float(neutral.std[d.site][row]),
            typical_norm=neutral.typical_norms[d.site],
        )


def origin_of(
    info: ModelInfo,
    method: Method,
    readings: Sequence[Reading],
    directions: Sequence[Direction],
    neutral: NeutralStates,
) -> Origin:
    """Where the directions come from: model, method, data, neutral texts and how they are read."""
    accuracy: dict[str, dict[str, float]] = {}
    for d in directions:
        if "pair_accuracy" in d.provenance:
            accuracy.setdefault(d.name, {})[d.site.key] = float(d.provenance["pair_accuracy"])
    parameters = {
        **method.parameters,
        "paired": {r.contrast.concept: r.contrast.paired for r in readings},
        "typical_norms_of": f"{neutral.tokens} {NORMS_OF} ({neutral.texts} texts)",
        "mean_std_of": f"{neutral.reply_tokens} {neutral.reply_rule} ({neutral.replies} replies)",
        **({"questions_hash": questions_hash()} if neutral.reply_rule == IN_A_CHAT else {}),
        **({"pair_accuracy": accuracy} if accuracy else {}),
        **({"fits": fits} if (fits := _fits(directions, method)) else {}),
        **({"head": directions[0].provenance["head"]} if "head" in directions[0].provenance else {}),
    }
    poolings = {r.pooling for r in readings}
    return Origin(
        model=info.id,
        revision=info.revision,
        n_layers=info.n_layers,
        method=method.name,
        parameters=parameters,
        pooling=", ".join(dict.fromkeys(r.pooling for r in readings)),
        template_hash=info.template_hash if any(r.contrast.messages for r in readings) else None,
        data_hash=joint_hash([r.contrast for r in readings]),
        neutral_hash=neutral_hash(),
        read_position=None if poolings <= EVERY_TOKEN else "each reply token",
        read_alignment="emit",
        sign_source=directions[0].sign_source,
        counts={f"{r.contrast.concept}/{s}": n for r in readings for s, n in r.contrast.counts.items()},
        dtype=info.dtype,
    )


def _fits(directions: Sequence[Direction], method: Method) -> dict[str, dict[str, dict[str, Any]]]:
    """What each fit found out beside its row, as numbers and words: concept -> site -> name -> value."""
    chosen = method.parameters  # a knob left open (None) is told with the value that the fit gave it
    told = {"method", "pair_accuracy", *chosen}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for d in directions:
        own = {k: v for k, v in d.provenance.items() if isinstance(v, (int, float, str))}
        own = {k: v for k, v in own.items() if k not in told or (k in chosen and chosen[k] is None)}
        if own:
            found.setdefault(d.name, {})[d.site.key] = own
    return found


def joint_hash(contrasts: Sequence[Contrast]) -> str:
    """Hash of a whole corpus, as it stands in the file's origin."""
    if len(contrasts) == 1:
        return contrasts[0].hash
    return hashlib.sha256("".join(c.hash for c in contrasts).encode()).hexdigest()[:32]
