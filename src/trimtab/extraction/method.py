"""What every extraction method is: its needs, its knobs, and `fit`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from trimtab.directions import Direction
from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.objectives import Separation

#: Differences below this share of the states' own size are rounding (float32 resolves 6e-8), not signal.
NOTHING = 1e-6


class ExtractionWarning(UserWarning):
    """The method did what was asked, and the data suggest that another would serve better."""


class Method(ABC):
    """Base of all methods; subclasses are frozen dataclasses whose fields are the knobs.

    `needs` is what the engine must collect (`wanted` where a knob decides); `paired` methods refuse data
    without pairs; `signed` ones know their sign and need no vote; `learns` is False for baselines that look at
    the data only for their length.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    paired: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    learns: ClassVar[bool] = True
    #: Where the sign comes from, for methods that learn: the pairs' vote or a gradient.
    sign_source: ClassVar[str] = "pairs"
    #: Whether the raw norm is in the states' own units, so that it grows with them.
    scales: ClassVar[bool] = True

    @property
    def wanted(self) -> frozenset[str]:
        """What the engine must collect for these knobs."""
        return self.needs

    @property
    def objective(self) -> Separation | None:
        """What the need "gradients" differentiates."""
        return None

    @abstractmethod
    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        """The raw vector [width] float64, of any sign, and what to remember of how it came about."""

    def fit(self, evidence: Evidence, name: str) -> Direction:
        """One concept's direction at one site: unit row, raw norm, and a sign towards the positives."""
        self.check_pairs(evidence.paired, name)
        evidence.require(*self.wanted)
        check_finite(evidence, name)
        if self.learns:
            check_difference(evidence, name)
        raw, known = self._raw(evidence, name)
        if not self.learns:
            return self._direction(evidence, name, raw, "none", known)
        sign, vote = self._sign(evidence, raw)
        if self.signed and sign < 0:  # outliers: most pairs disagree with their own mean, which still stands
            sign, vote = 1.0, {k: 1.0 - v for k, v in vote.items()}
        return self._direction(evidence, name, sign * raw, self.sign_source, {**vote, **known})

    def _sign(self, evidence: Evidence, raw: np.ndarray) -> tuple[float, dict[str, Any]]:
        """+1 or -1, which turns `raw` towards the positives, and what to remember of the vote."""
        return pairs_vote(evidence, raw)

    def _direction(
        self, evidence: Evidence, name: str, raw: np.ndarray, sign_source: str, known: dict[str, Any]
    ) -> Direction:
        provenance = {"method": self.name, **self.parameters, "counts": dict(evidence.count), **known}
        return Direction.from_raw(name, evidence.site, raw, sign_source=sign_source, provenance=provenance)

    def check_pairs(self, paired: bool, name: str) -> None:
        """Refuse unpaired data where pairs are needed; callable before any model loads."""
        if self.paired and not paired:
            raise InputError(
                f"{self.name} needs pairs, and the data of {name!r} are not paired: "
                "use --method mean_diff, or write pairs as JSON lines"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """The knobs."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


def check_finite(evidence: Evidence, name: str) -> None:
    """Refuse NaN and infinity, whatever they came from."""
    arrays = [*evidence.mean.values(), *evidence.var.values()]
    if evidence.factor is not None:
        arrays.append(evidence.factor)
    for given in (evidence.gradients, evidence.loss_norms, evidence.logprobs):
        arrays += [] if given is None else list(given.values())
    if not all(np.isfinite(a).all() for a in arrays):
        raise InputError(
            f"the activations of {name!r} at {evidence.site} hold NaN or infinite numbers; try --dtype "
            "float32"
        )


def mean_difference(evidence: Evidence) -> np.ndarray:
    """mean(positive) - mean(negative), [width] float64."""
    return evidence.mean[POSITIVE] - evidence.mean[NEGATIVE]


def check_difference(evidence: Evidence, name: str) -> None:
    """Refuse states that do not differ at all: then there is nothing to find, only rounding."""
    size = max(np.linalg.norm(m) for m in evidence.mean.values())
    spread = np.sqrt(max(v.sum() for v in evidence.var.values()))
    if max(float(np.linalg.norm(mean_difference(evidence))), float(spread)) <= NOTHING * size or size == 0:
        raise InputError(
            f"the activations of {name!r} at {evidence.site} are identical on both sides: every text is "
            "read at "
            "a token where the model knows nothing of it yet; read with --pooling last_content or "
            "mean_assistant, "
            "or at a later layer"
        )


def pairs_vote(evidence: Evidence, raw: np.ndarray) -> tuple[float, dict[str, Any]]:
    """The sign that most pairs vote for, on UNCENTRED projections: centred ones have mean 0 and know nothing.

    While the factor still holds the differences themselves (up to 2 * width pairs), each pair has one vote,
    and the share that agrees is the `pair_accuracy`; else, and on a tie, the mean difference decides.
    """
    lean = float(mean_difference(evidence) @ raw)
    factor = evidence.factor
    if factor is None or len(factor) != evidence.pairs:
        return (-1.0 if lean < 0 else 1.0), {}
    votes = factor @ raw
    share = float(np.mean(votes > 0) + 0.5 * np.mean(votes == 0))
    flip = share < 0.5 or (share == 0.5 and lean < 0)
    return (-1.0 if flip else 1.0), {"pair_accuracy": 1.0 - share if flip else share}
