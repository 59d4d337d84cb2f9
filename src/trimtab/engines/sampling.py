"""Uniform numbers that belong to one sample: the same for a seed and sample index in any batch. numpy only."""

from __future__ import annotations

import numpy as np

from trimtab.engines.requests import Sampling

#: Uniform numbers that a sample owns per token; engines that sample by rejection use one per attempt.
DRAWS = 4
#: Steps that are drawn at a time, so that a long limit costs nothing to a short answer.
BLOCK = 64


class Uniforms:
    """Uniforms in [0, 1) of one sample, from a counter-based generator keyed by (seed, sample index).

    Step t of sample j gets the same `DRAWS` numbers whatever the batch, the order and the other samples do. Without
    a seed they come from the operating system's entropy.
    """

    @classmethod
    def of(cls, sampling: Sampling, sample: int) -> Uniforms:
        """Those of sample `sample` of a request, or of the sample that it resumes."""
        return cls(sampling.seed, *(sampling.resumes or (sample, 0)))

    def __init__(self, seed: int | None, sample: int, start: int = 0) -> None:
        self._start = start
        entropy = None if seed is None else [abs(int(seed)), int(seed < 0), sample]
        self._random = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        self._block = np.empty((0, DRAWS), dtype=np.float32)

    def at(self, step: int) -> np.ndarray:
        """The numbers [DRAWS] float32 of one step; steps are asked for in ascending order."""
        step += self._start
        while step >= len(self._block):
            fresh = self._random.random((BLOCK, DRAWS), dtype=np.float32)
            self._block = np.concatenate([self._block, fresh])
        return self._block[step]
