"""What every extraction method is: its needs, its knobs, and `fit`."""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from trimtab.directions import Direction
from trimtab.errors import InputError, MissingDependency
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.objectives import Separation

#: Differences below this share of the states' own size are rounding (float32 resolves 6e-8), not signal.
NOTHING = 1e-6
#: Pairs from which a vote of about one half says something: chance alone puts fewer there most of the time.
ENOUGH_VOTES = 20


#: A judge's marks of the positive and of the negative texts; NaN or None where a text has none.
Marks = tuple[Sequence[float | None] | np.ndarray, Sequence[float | None] | np.ndarray]


class ExtractionWarning(UserWarning):
    """The method did what was asked, and the data suggest that another would serve better."""


class Method(ABC):
    """Base of all methods; subclasses are frozen dataclasses whose fields are the knobs.

    `needs` is what the engine must collect (`wanted` where a knob decides); `paired` methods refuse data
    without pairs; `signed` ones know their sign and need no vote; `learns` is False for baselines that look at
    the data only for their length; `sklearn` ones need scikit-learn.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    paired: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    learns: ClassVar[bool] = True
    sklearn: ClassVar[bool] = False
    #: Where the sign comes from, for methods that learn: the pairs' vote or a gradient.
    sign_source: ClassVar[str] = "pairs"
    #: Whether the raw norm is in the states' own units, so that it grows with them.
    scales: ClassVar[bool] = True
    #: Whether swapped sides give exactly the opposite direction.
    odd: ClassVar[bool] = True

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
        """The raw vector [width] float64, of any sign, and what to remember of how it came about.

        Two keys are not provenance but fields of the direction: `bias`, the number that makes
        h.(raw / ||raw||) + bias the decision value, and `basis` [k, width], orthonormal rows.
        """

    def fit(self, evidence: Evidence, name: str) -> Direction:
        """One concept's direction at one site: unit row, raw norm, and a sign towards the positives."""
        self.check_pairs(evidence.paired, name)
        evidence.require(*self.wanted)
        check_finite(evidence, name)
        if self.learns:
            check_difference(evidence, name)
        self.check_scores(_marks(evidence), evidence.paired, name)
        raw, known = self._raw(evidence, name)
        if not self.learns:
            return self._direction(evidence, name, raw, "none", known)
        sign, vote = self._sign(evidence, raw)
        if self.signed and sign < 0:  # outliers: most pairs disagree with their own mean, which still stands
            sign, vote = 1.0, {k: 1.0 - v for k, v in vote.items()}
        if "bias" in known:
            known["bias"] *= sign
        warn_of_split_votes(evidence, vote)
        return self._direction(evidence, name, sign * raw, self.sign_source, {**vote, **known})

    def fit_site(self, evidence: Sequence[Evidence], names: Sequence[str]) -> Iterator[Direction]:
        """`fit` of several concepts at one site, in their order; a method overrides it where they share work."""
        for part, name in zip(evidence, names, strict=True):
            yield self.fit(part, name)

    def _sign(self, evidence: Evidence, raw: np.ndarray) -> tuple[float, dict[str, Any]]:
        """+1 or -1, which turns `raw` towards the positives, and what to remember of the vote."""
        return pairs_vote(evidence, raw)

    def _direction(
        self, evidence: Evidence, name: str, raw: np.ndarray, sign_source: str, known: dict[str, Any]
    ) -> Direction:
        fields = {key: known.pop(key) for key in ("bias", "basis") if key in known}
        provenance = {"method": self.name, **self.parameters, "counts": dict(evidence.count), **known}
        return Direction.from_raw(
            name, evidence.site, raw, sign_source=sign_source, provenance=provenance, **fields
        )

    def check_pairs(self, paired: bool, name: str) -> None:
        """Refuse unpaired data where pairs are needed; callable before any model loads."""
        if self.paired and not paired:
            raise InputError(
                f"{self.name} needs pairs, and the data of {name!r} are not paired: "
                "use --method mean_diff, or write pairs as JSON lines"
            )

    def check_scores(self, scores: Marks | None, paired: bool, name: str) -> None:
        """Refuse marks that leave nothing to learn from; callable before any model loads. Most methods do not
        look at marks.
        """
        return None

    def check_installed(self) -> None:
        """Refuse to start without scikit-learn where the method is built on it; callable before a model loads."""
        if self.sklearn and importlib.util.find_spec("sklearn") is None:
            raise MissingDependency.of("scikit-learn", "eval", f"the method {self.name}")

    @property
    def parameters(self) -> dict[str, Any]:
        """The knobs."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


def check_finite(evidence: Evidence, name: str) -> None:
    """Refuse NaN and infinity, whatever they came from."""
    arrays = [*evidence.mean.values(), *evidence.var.values()]
    if evidence.factor is not None:
        arrays.append(evidence.factor)
    for given in (evidence.rows, evidence.gradients, evidence.loss_norms, evidence.logprobs):
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
    pairs = differences(evidence)
    pairs = evidence.factor if pairs is None else pairs
    if pairs is not None and float(np.abs(pairs).max()) <= NOTHING * size:
        raise InputError(
            f"the two texts of every pair of {name!r} have the same state at {evidence.site}: there is nothing to "
            "find; read with --pooling last_content or mean_assistant, or at a later layer"
        )


def differences(evidence: Evidence) -> np.ndarray | None:
    """P - N, one row per pair [n, width] float64, where the evidence still holds them: as rows, or as a factor
    that is not folded yet (up to 2 * width pairs).
    """
    if evidence.paired and evidence.rows is not None:
        return evidence.rows[POSITIVE] - evidence.rows[NEGATIVE]
    factor = evidence.factor
    return factor if factor is not None and len(factor) == evidence.pairs else None


def pairs_vote(evidence: Evidence, raw: np.ndarray) -> tuple[float, dict[str, Any]]:
    """The sign that most pairs vote for, on UNCENTRED projections: centred ones have mean 0 and know nothing.

    While the evidence still holds the differences themselves each pair has one vote, and the share that agrees
    is the `pair_accuracy`; once they are folded those of its reservoir vote. Without any, and on a tie, the mean
    difference decides.
    """
    lean = float(mean_difference(evidence) @ raw)
    found = differences(evidence)
    found = evidence.reservoir if found is None else found
    if found is None:
        return (-1.0 if lean < 0 else 1.0), {}
    votes = found @ raw
    share = float(np.mean(votes > 0) + 0.5 * np.mean(votes == 0))
    flip = share < 0.5 or (share == 0.5 and lean < 0)
    return (-1.0 if flip else 1.0), {"pair_accuracy": 1.0 - share if flip else share}


def warn_of_split_votes(evidence: Evidence, vote: dict[str, Any]) -> None:
    """Say so where the pairs that made the direction hardly agree on which way it points."""
    accuracy = vote.get("pair_accuracy")
    if evidence.pairs >= ENOUGH_VOTES and accuracy is not None and abs(accuracy - 0.5) <= 0.1:
        # One wording for every site, so that Python shows it once.
        warnings.warn(
            "the very pairs that made the direction hardly agree on its sign (pair accuracy .4 to .6): do not "
            "steer or read with it; use another layer or method, or check that the pairs differ in one thing",
            ExtractionWarning,
            stacklevel=4,
        )


def _marks(evidence: Evidence) -> Marks | None:
    return None if evidence.scores is None else (evidence.scores[POSITIVE], evidence.scores[NEGATIVE])
