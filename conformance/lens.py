"""vllm-lens: vectors and layer indices in `extra_args`, residual streams attached to the output."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from peer import Dialect

from trimtab.errors import Unsupported
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site


class Lens(Dialect):
    """`apply_steering_vectors` and `output_residual_stream`, as its README has them."""

    name, plugin, captures = "vllm-lens", "activations", True

    def __init__(self) -> None:
        self.version = version("vllm-lens")

    def check_placement(self, p: ResolvedPlacement) -> None:
        """All tokens. It also takes rows for listed positions, which the adapter does not translate."""
        if p.ranges != ((0, None),):
            raise Unsupported("the adapter of vllm-lens speaks of all tokens only")

    def extra(self, plan: ResolvedPlan, capture: Sequence[Site]) -> dict[str, Any]:
        """One `SteeringVector` per placement."""
        import torch
        from vllm_lens import SteeringVector

        vectors = []
        for p in plan.effective:
            row = torch.from_numpy(np.array(plan.vectors[p.vector], dtype=np.float32))
            fields: dict[str, Any] = {"layer_indices": [p.site.layer], "scale": p.coefficients.shift}
            fields["norm_match"] = p.relative
            vectors.append(SteeringVector(activations=row[None], **fields))
        found: dict[str, Any] = {"apply_steering_vectors": vectors} if vectors else {}
        if capture:
            found["output_residual_stream"] = [s.layer for s in sorted(capture)]
        return found

    def states(self, output: Any, sites: Sequence[Site]) -> dict[Site, np.ndarray]:
        """`output.activations["residual_stream"]` [layers, T, width], layers ascending."""
        stream = getattr(output, "activations", {"residual_stream": None})["residual_stream"]
        if stream is None:
            raise RuntimeError("the output came back without its activations")
        return {s: stream[i].float().numpy() for i, s in enumerate(sorted(sites))}

    def register(self) -> None:
        from vllm_lens._activations_plugin import register

        register()
        register()
