"""The matrices of a model's projections, for analyses that look at what a head or a neuron writes."""

from __future__ import annotations

import numpy as np
import torch

from trimtab.engines.transformers.taps import Tap
from trimtab.errors import Unsupported
from trimtab.sites import PROJECTIONS


def matrix(tap: Tap) -> np.ndarray:
    """Matrix [out, in] float32 of the map whose output flows through `tap`; of a fused map, the site's own rows."""
    site, module = tap.site, tap.module
    weight = getattr(module, "weight", None)
    if site.stream not in PROJECTIONS or tap.side != "output" or not isinstance(weight, torch.Tensor):
        raise Unsupported(f"{site} is not the output of one projection; those are {', '.join(PROJECTIONS)}")
    if not weight.is_floating_point() or weight.dim() != 2:
        raise Unsupported(
            f"the weights at {site} are packed ({weight.dtype}); load the model without --quantization to read them"
        )
    if type(module).__name__ == "Conv1D":  # GPT-2 keeps its maps as [in, out]
        weight = weight.T
    if tap.columns is not None:
        weight = weight[tap.columns]
    if weight.shape[0] != tap.width:
        raise Unsupported(
            f"{type(module).__name__} at {site} keeps its weights in a layout that is not known"
        )
    return weight.detach().to(device="cpu", dtype=torch.float32).numpy().copy()
