"""What a learned vector is trained on: named objectives that an engine differentiates (`Engine.gradient`).

Row b of a batch is steered by `coefficients[b] * vector` at every position of one site; each objective gives
one loss per row. They are values, so that training code never touches an engine's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.errors import InputError


@dataclass(frozen=True)
class ChoiceLogRatio:
    """Push the next-token log-ratio of two answers to `sign * log-ratio >= margin`.

    With r = logsumexp(log p[yes]) - logsumexp(log p[no]) after a row's last token, loss = softplus(margin -
    sign * r). `yes` and `no` are disjoint token ids; `signs` [rows] are +1 or -1.
    """

    yes: tuple[int, ...]
    no: tuple[int, ...]
    signs: tuple[float, ...]
    margin: float = 2.0

    def __post_init__(self) -> None:
        if not self.yes or not self.no or set(self.yes) & set(self.no):
            raise InputError("the two answers need disjoint, non-empty token ids")
        if any(s not in (-1, 1) for s in self.signs):
            raise InputError("signs are +1 or -1")


@dataclass(frozen=True)
class ContinuationNLL:
    """Mean negative log-likelihood, in nats per token, of each row's tokens from index `starts[row]` on."""

    starts: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(s < 1 for s in self.starts):
            raise InputError("a continuation starts after at least one token")


Objective = ChoiceLogRatio | ContinuationNLL


@dataclass(frozen=True)
class Separation:
    """Separate pairs at a read layer while their positive texts stay likely; evaluated once, nothing is trained.

    With delta = h+ - h- [pairs, width], the pooled states at `read` (a layer, -1 the last, or a percent), and l the
    mean log-prob per token of each positive text: L = -separation * mean ||delta|| + coherence * mean relu(margin *
    l.detach() - l)^2. Since l < 0, the relu's argument is (1 - margin) |l|: just outside its boundary, always. At the
    read layer the gradients of the first term are -delta/||delta||/n on positive and the opposite on negative rows,
    so that their plain mean is zero; methods average them with signs.
    """

    read: int | str = -1
    separation: float = 1.0
    coherence: float = 1e4
    margin: float = 0.99

    def __post_init__(self) -> None:
        if not (self.separation > 0 and self.coherence >= 0 and 0 < self.margin <= 1):
            raise InputError("a separation needs separation > 0, coherence >= 0 and 0 < margin <= 1")
