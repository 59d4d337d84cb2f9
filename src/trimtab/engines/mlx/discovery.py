"""Find an MLX model's sites by what its modules do, never by what they are called.

One forward pass over a few tokens records every module call in the blocks. The token mixer is the child in which a
change at the first token reaches later ones; `attn_out` and `mlp_out` are the outputs for which input + attn_out +
mlp_out = output of the block; o_proj and down_proj are the last linear maps whose output is the branch's output.
`projections` tells q, k, v, gate and up apart. A site whose test fails is left out, and plans for it are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from trimtab.engines.mlx import projections
from trimtab.engines.mlx.dispatch import watching
from trimtab.engines.mlx.taps import Call, Tap, array_of
from trimtab.errors import Unsupported
from trimtab.sites import Site

PROBE_TOKENS = 5


def discover(
    model: nn.Module, config: dict[str, Any], vocabulary: int
) -> tuple[list[nn.Module], dict[Site, Tap]]:
    """(the blocks, a tap for every site that could be proved)."""
    ids = mx.array([probe_ids(config, vocabulary)])
    blocks, count = _find_blocks(model, config, ids)
    modules = [(n, m) for block in blocks for n, m in block.named_modules() if m is not block]
    modules += [("", block) for block in blocks]
    with recorded(modules) as calls:
        mx.eval(model(ids))
    width = array_of(calls[id(blocks[0])].output).shape[-1]
    taps: dict[Site, Tap] = {}
    for layer, block in enumerate(blocks):
        taps.update({tap.site: tap for tap in _block_taps(layer, block, calls, config, width)})
    if len([s for s in taps if s.stream == "resid_post"]) != count:
        raise Unsupported(f"{type(model).__name__}: not every block passes on states [batch, tokens, hidden]")
    return blocks, taps


def probe_ids(config: dict[str, Any], vocabulary: int, length: int = PROBE_TOKENS) -> list[int]:
    """A few ordinary token ids: none that the config names as special."""
    named = {v for k, v in config.items() if k.endswith("token_id") and isinstance(v, int)}
    ordinary = [i for i in range(min(vocabulary, 4096)) if i not in named]
    stride = max(1, len(ordinary) // (length + 1))
    return [ordinary[(i + 1) * stride % len(ordinary)] for i in range(length)]


@contextmanager
def recorded(modules: list[tuple[str, nn.Module]]) -> Iterator[dict[int, Call]]:
    """Record the last call of each module inside the context, by id."""
    calls: dict[int, Call] = {}

    def hook(name: str, module: nn.Module) -> Any:
        def run(inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            output = inner(*args, **kwargs)
            calls[id(module)] = Call(module, args, kwargs, output, len(calls), name)
            return output

        return run

    distinct = {id(m): (n, m) for n, m in modules}
    with watching([(m, hook(n, m)) for n, m in distinct.values()]):
        yield calls


def _find_blocks(model: nn.Module, config: dict[str, Any], ids: mx.array) -> tuple[list[nn.Module], int]:
    """The list of as many modules as the config has layers, all of which a text passes through."""
    count = int(config["num_hidden_layers"])
    lists = [
        value
        for _, module in model.named_modules()
        for value in module.values()
        if isinstance(value, list) and len(value) == count and all(isinstance(v, nn.Module) for v in value)
    ]
    for blocks in lists:
        with recorded([("", b) for b in blocks]) as calls:
            model(ids)
        if all(id(b) in calls and calls[id(b)].states is not None for b in blocks):
            return blocks, count
    raise Unsupported(
        f"{type(model).__name__} has no list of {count} blocks that a text passes through; "
        "the mlx engine steers decoder-only language models"
    )


def _block_taps(
    layer: int, block: nn.Module, calls: dict[int, Call], config: dict[str, Any], width: int
) -> Iterator[Tap]:
    call = calls[id(block)]
    entry, states = call.find_input(width), call.states
    if entry is None or states is None or states.ndim != 3:
        return
    key, before = entry
    first = min((c.index for m in block.modules() if (c := calls.get(id(m)))), default=call.index)

    def tap(stream: str, c: Call, side: str, key: Any, array: mx.array, columns: Any = None) -> Tap:
        wide = array.shape[-1] if columns is None else mx.arange(array.shape[-1])[columns].size
        order = 2 * (first if stream == "resid_pre" else c.index) - (side == "input")
        name = f"layers.{layer}" + (f".{c.name}" if c.name else "")
        return Tap(Site(layer, stream), c.module, name, side, key, wide, order, columns)

    yield tap("resid_pre", call, "input", key, before)
    yield tap("resid_post", call, "output", call.output_key, states)
    mixer, mlp, children = _branches(block, calls, width)
    attn_out, mlp_out = _added(children, mixer, mlp, before, states)
    if attn_out is not None:
        yield tap("attn_out", attn_out, "output", attn_out.output_key, array_of(attn_out.output))
    if mlp_out is not None:
        yield tap("mlp_out", mlp_out, "output", mlp_out.output_key, array_of(mlp_out.output))
    for stream, c, side, columns in projections.find(mixer, mlp, children, calls, config):
        array = c.args[0] if side == "input" else array_of(c.output)
        if array.ndim == 3:
            yield tap(stream, c, side, 0 if side == "input" else None, array, columns)


def _branches(
    block: nn.Module, calls: dict[int, Call], width: int
) -> tuple[Call | None, Call | None, list[Call]]:
    """(the token mixer, the MLP or mixture of experts, every child call in the order of execution)."""
    members = [
        m for v in block.values() for m in (v if isinstance(v, list) else [v]) if isinstance(m, nn.Module)
    ]
    children = sorted((calls[id(m)] for m in members if id(m) in calls), key=lambda c: c.index)
    children = [c for c in children if c.states is not None and c.states.shape[-1] == width]
    mixer = mlp = None
    for c in children:
        if not any(projections.is_linear(m) for m in c.module.modules()):
            continue
        if _mixes_tokens(c, width):
            mixer = mixer or c
        elif mlp is None or not projections.is_linear(c.module) or projections.is_linear(mlp.module):
            mlp = c
    return mixer, mlp, children


def _mixes_tokens(call: Call, width: int) -> bool:
    """Whether a change at the first token reaches later ones."""
    entry, states = call.find_input(width), call.states
    if entry is None or states is None or states.ndim != 3:
        return False
    key, value = entry
    noise = mx.random.normal(value[:, :1].shape, key=mx.random.key(0)) * (4 * mx.std(value) + 1)
    moved = mx.concatenate([value[:, :1] + noise.astype(value.dtype), value[:, 1:]], axis=1)
    after = array_of(call.again(key, moved))
    return not projections.close(after[:, 1:], states[:, 1:], 8)


def _added(
    children: list[Call], mixer: Call | None, mlp: Call | None, before: mx.array, after: mx.array
) -> tuple[Call | None, Call | None]:
    """The pair of outputs with before + attn_out + mlp_out = after; (None, None) where no pair satisfies it."""
    if mixer is None or mlp is None:
        return None, None
    start, middle = children.index(mixer), children.index(mlp)
    if start > middle:
        groups = [(a, m) for m in children[middle:start] for a in children[start:]]
    else:
        groups = [(a, m) for a in children[start:middle] for m in children[middle:]]
    best: tuple[float, Call, Call] | None = None
    for a, m in groups:
        error = _residual_error(before, after, array_of(a.output), array_of(m.output))
        if error <= 1.0 and (best is None or error < best[0] / 4 - 0.01):
            best = (error, a, m)
    return (best[1], best[2]) if best else (None, None)


def _residual_error(b: mx.array, after: mx.array, a: mx.array, m: mx.array) -> float:
    """Largest violation of before + a + m = after, in units of what rounding in the model's dtype allows."""
    if a.shape != b.shape or m.shape != b.shape:
        return float("inf")
    parts = [x.astype(mx.float32) for x in (b, a, m)]
    whole = after.astype(mx.float32)
    error = mx.abs(parts[0] + parts[1] + parts[2] - whole)
    eps = projections.EPSILON[after.dtype]
    rounding = eps * (sum((mx.abs(x) for x in parts), mx.abs(whole)))
    worst: Any = mx.max(error / (4 * rounding + 1e-12)).item()
    return float(worst)
