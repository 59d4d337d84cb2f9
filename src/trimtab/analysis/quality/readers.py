"""What an MLP's neurons read from the residual stream: rows of the gate and up projections, with the norm before them.

A block norms the residual before its MLP, so a row of W_gate is not what a neuron reads; row * gain is, with the
division by the token's own length taken as fixed. The gain is *measured*: of the states that may enter (after
attention, or beside it) and the norms that models use (RMSNorm, LayerNorm, none), the one is taken under which some
gain per channel explains what the projection puts out on neutral tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.quality.neurons import Neuron
from trimtab.data.neutral import neutral_texts
from trimtab.engines.base import Engine
from trimtab.errors import Unsupported
from trimtab.sites import Site

PROJECTIONS = ("gate", "up")
#: Share of what leaves the projection that a norm with a gain may fail to explain.
TOLERANCE = 0.02
TOKENS = 32
EPS = 1e-6


@dataclass(frozen=True)
class ReadBy:
    """The neurons of block `layer` whose gate row, and whose up row, is most parallel to a direction; None where the
    MLP has no such projection."""

    layer: int
    gate: Neuron | None
    up: Neuron | None


def reading_layer(site: Site, n_layers: int) -> int:
    """The block whose MLP is the next to read a residual state: the site's own before its MLP, else the next."""
    layer = site.layer + (site.stream in ("down", "mlp_out", "resid_post"))
    if layer >= n_layers:
        raise Unsupported(f"no MLP reads {site}: it is behind the last one")
    return layer


def reads(engine: Engine, layer: int, projection: str) -> np.ndarray:
    """Matrix [hidden, m] float32 whose columns are what the neurons of "gate" or "up" read."""
    site = Site(layer, projection)
    weight = engine.weight(site)
    states = {s: Site(layer, s) for s in ("resid_pre", "attn_out")}
    missing = [s for s in states.values() if s not in engine.info.widths]
    if missing:
        raise Unsupported(f"{missing[0]} of {engine.info.id} cannot be read: what enters {site} is unknown")
    prompt = engine.encode(neutral_texts()[0], bare=True)
    seen = engine.capture(prompt, [*states.values(), site])[0]
    before, added, out = (seen[s][1 : TOKENS + 1].astype(np.float64) for s in (*states.values(), site))
    for normed, centred in _candidates(before, added):
        gain = _gain(normed, weight, out)
        if gain is None:
            continue
        rows = weight * gain.astype(np.float32)
        return (rows - rows.mean(1, keepdims=True) if centred else rows).T
    raise Unsupported(
        f"what {engine.info.id} does before {site} is no norm of the residual stream that is known"
    )


def _candidates(before: np.ndarray, added: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """States [tokens, hidden] that may enter, up to a gain per channel, and whether their mean was taken off."""
    for state in (before + added, before):
        centred = state - state.mean(1, keepdims=True)
        yield state / np.sqrt((state**2).mean(1, keepdims=True) + EPS), False
        yield centred / np.sqrt((centred**2).mean(1, keepdims=True) + EPS), True
        yield state, False


def _gain(entering: np.ndarray, weight: np.ndarray, out: np.ndarray) -> np.ndarray | None:
    """The gain [hidden] for which weight (gain * entering) is `out` up to a constant row, by least squares; None where
    it leaves more than `TOLERANCE` unexplained."""
    from scipy.sparse.linalg import LinearOperator, lsqr

    entering, out = entering - entering.mean(0), out - out.mean(0)
    w = weight.astype(np.float64)
    operator = LinearOperator(
        (out.size, entering.shape[1]),
        matvec=lambda g: ((entering * g.ravel()) @ w.T).ravel(),  # type: ignore[call-arg]
        rmatvec=lambda r: (entering * (r.reshape(out.shape) @ w)).sum(0),  # type: ignore[call-arg]
        dtype=np.float64,  # type: ignore[call-arg]
    )
    gain = lsqr(operator, out.ravel(), atol=1e-6, btol=1e-6, iter_lim=200)[0]
    missed = np.linalg.norm(out - (entering * gain) @ w.T) / np.linalg.norm(out)
    return gain if missed <= TOLERANCE else None
