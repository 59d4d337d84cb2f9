"""A random direction: the baseline that every claim about steering is to be compared with.

v = r * ||mean(P) - mean(N)||, r isotropic on the unit sphere and drawn from (seed, concept, site), so that it
does not depend on the order in which sites are fitted. It has the raw norm of the mean difference, so that
`scale` 1 displaces by the same length. AxBench (arXiv 2501.17148) and selection over signs show why it is
needed: the better of two signs of a random vector looks like an effect.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.method import Method, mean_difference


@dataclass(frozen=True)
class Random(Method):
    """`seed` selects the draw."""

    name: ClassVar[str] = "random"
    needs: ClassVar[frozenset[str]] = frozenset({"mean"})
    learns: ClassVar[bool] = False

    seed: int = 0

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        length = float(np.linalg.norm(mean_difference(evidence)))
        if length == 0:
            raise InputError(
                f"the two sides of {name!r} have the same mean at {evidence.site}: a random direction takes "
                "its "
                "length from their difference, and there is none"
            )
        key = hashlib.sha256(f"{self.seed}\0{name}\0{evidence.site.key}".encode()).digest()
        draw = np.random.default_rng(int.from_bytes(key[:8], "little")).standard_normal(evidence.width)
        return draw * (length / np.linalg.norm(draw)), {}
