"""Where the texts of one side live and the others do not: v = sum_j max(l_j, 0) (u_j.m) u_j, m = mean(P) -
mean(N).

Every text spans a subspace with its tokens; M is the mean of the projectors of a side, and l_j, u_j are the k
largest eigenvalues (from -1 to 1) and eigenvectors of M(P) - M(N). A direction in every positive text and in
no negative one has l = 1. Weighing the mean difference m does not depend on the signs of eigenvectors, nor on
their basis where eigenvalues are equal; `mode` "oriented_sum", sum_j l_j sign(u_j.m) u_j, does, and is there
for parity with readout trainers that add them up.

A projector forgets how strong a direction is, and texts of as many tokens as the state is wide span
everything: `weights` "soft" gives each direction sigma^2 / (sigma^2 + median sigma^2), `rank` caps them.
Tokens that are special or first are not counted. Concepts that are each other's negatives are solved together: the
projectors of all their texts are summed once (`projectors.Together`). The u_j with l_j > 0, turned towards m, are
stored as the direction's basis. Raw norm: the length of v, which for l = 1 is that of m inside the subspace; pairs
are not needed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from trimtab.directions import Direction
from trimtab.errors import InputError, UnknownName
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.davidson import Top
from trimtab.extraction.method import NOTHING, Method, mean_difference
from trimtab.extraction.projectors import Together, span, top_of

Weights = Literal["full", "soft"]
Mode = Literal["projected", "oriented_sum"]


@dataclass(frozen=True)
class Subspace(Method):
    """More directions `k` keep more of the mean difference; the basis takes k times the room of the vector."""

    name: ClassVar[str] = "subspace"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "tokens"})
    signed: ClassVar[bool] = True
    odd: ClassVar[bool] = False
    #: The tops that `fit_site` has already found, by the identity of the evidence.
    _found: ClassVar[Mapping[int, Top]] = {}

    k: int = 5
    weights: Weights = "full"
    rank: int | None = None
    mode: Mode = "projected"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"subspace takes k >= 1 directions, got k={self.k}")
        if self.rank is not None and self.rank < 1:
            raise InputError(f"subspace keeps rank >= 1 directions of every text, got rank={self.rank}")
        for knob, choices in (("weights", Weights), ("mode", Mode)):
            if getattr(self, knob) not in get_args(choices):
                raise UnknownName.of(
                    f"value of the knob {knob} of subspace,", getattr(self, knob), get_args(choices)
                )

    def fit_site(self, evidence: Sequence[Evidence], names: Sequence[str]) -> Iterator[Direction]:
        """Concepts that are each other's negatives share the sum of all projectors, and the products with it."""
        chosen = copy.copy(self)
        if len(evidence) > 1 and all(e.tokens is not None for e in evidence):
            object.__setattr__(chosen, "_found", self._together(evidence, names))
        for part, name in zip(evidence, names, strict=True):
            yield chosen.fit(part, name)

    def _together(self, evidence: Sequence[Evidence], names: Sequence[str]) -> dict[int, Top]:
        sides = [(e.tokens[POSITIVE], e.tokens[NEGATIVE]) for e in evidence if e.tokens is not None]
        texts = {id(x): x for p, n in sides for x in (*p, *n)}
        if 2 * len(texts) > sum(len(p) + len(n) for p, n in sides):  # hardly a text is shared
            return {}
        for part, name, (p, n) in zip(evidence, names, sides, strict=True):
            _check(p + n, part, name)
        found = Together(list(texts.values()), self._span).tops(sides, self.k)
        return {id(e): top for e, top in zip(evidence, found, strict=True) if top is not None}

    def _span(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return span(text, self.rank, self.weights == "soft")

    def _top(self, evidence: Evidence, name: str) -> Top:
        assert evidence.tokens is not None
        if id(evidence) in self._found:
            return self._found[id(evidence)]
        _check(evidence.tokens[POSITIVE] + evidence.tokens[NEGATIVE], evidence, name)
        sides = [self._side(evidence.tokens[POSITIVE], 1.0), self._side(evidence.tokens[NEGATIVE], -1.0)]
        rows, weights = (np.concatenate(part) for part in zip(*sides, strict=True))
        return top_of(rows, weights, self.k)

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        values, found = self._top(evidence, name)
        found = found[values > NOTHING]
        if not len(found):
            raise InputError(
                f"the positive texts of {name!r} span nothing at {evidence.site} that the negative ones do not: "
                "use --set weights=soft, or --method mean_diff"
            )
        lead = values[: len(found)]
        mean = mean_difference(evidence)
        along = found @ mean
        found = np.where(along < 0, -1.0, 1.0)[:, None] * found
        raw = (lead * np.abs(along) if self.mode == "projected" else lead) @ found
        if np.linalg.norm(raw) <= NOTHING * np.linalg.norm(mean):
            raise InputError(
                f"the mean difference of {name!r} at {evidence.site} has no part in the subspace of k={self.k}: "
                "use --method mean_diff, or a larger k"
            )
        gap = {"gap": float(values[0] / values[1])} if len(values) > 1 and values[1] > NOTHING else {}
        return raw, {"eigenvalues": values.tolist(), **gap, "basis": found}

    def _side(self, texts: Sequence[np.ndarray], sign: float) -> tuple[np.ndarray, np.ndarray]:
        parts = [self._span(x) for x in texts]
        rows, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        return rows, sign / len(texts) * weights


def _check(texts: Sequence[np.ndarray], evidence: Evidence, name: str) -> None:
    if not all(len(x) and np.isfinite(x).all() and np.any(x) for x in texts):
        raise InputError(
            f"a text of {name!r} has no tokens to span anything at {evidence.site}, or their states hold NaN or "
            "infinite numbers: give longer texts, or try --dtype float32"
        )
