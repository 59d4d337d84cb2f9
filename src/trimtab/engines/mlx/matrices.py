"""Weights behind a tap, as float32: what a site's states were multiplied by, from whole or quantised layers."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from trimtab.engines.mlx.taps import Tap
from trimtab.errors import Unsupported
from trimtab.sites import PROJECTIONS


def matrix(tap: Tap) -> np.ndarray:
    """Matrix [out, in] float32 of the map whose output flows through `tap`; of a fused map, the site's own rows.

    Quantised weights come as the numbers that the layer multiplies by, unpacked.
    """
    site, module = tap.site, tap.module
    weight = getattr(module, "weight", None)
    if site.stream not in PROJECTIONS or tap.side != "output" or not isinstance(weight, mx.array):
        raise Unsupported(f"{site} is not the output of one projection; those are {', '.join(PROJECTIONS)}")
    if isinstance(module, nn.QuantizedLinear):
        biases = module.biases if module.mode == "affine" else None
        weight = mx.dequantize(
            weight, module.scales, biases, group_size=module.group_size, bits=module.bits, mode=module.mode
        )
    if weight.ndim != 2 or not mx.issubdtype(weight.dtype, mx.floating):
        raise Unsupported(f"the weights at {site} are packed in a way that is not known ({weight.dtype})")
    if tap.columns is not None:
        weight = weight[tap.columns]
    if weight.shape[0] != tap.width:
        raise Unsupported(
            f"{type(module).__name__} at {site} keeps its weights in a layout that is not known"
        )
    return np.array(weight.astype(mx.float32))
