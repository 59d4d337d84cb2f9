"""Tell the linear maps inside an MLX block apart by replaying its branches with one of them disturbed.

Attention: a disturbance of `v` or `k` at the first token reaches later tokens, and head_out is linear in `v` alone;
one of `q` stays at its own token and, at the first token, has no effect at all (a softmax over one key is 1). MLP: the
input of down_proj changes sign with `up`, and does not with `gate`. Fused maps are tried against the layouts in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from trimtab.engines.mlx.dispatch import watching
from trimtab.engines.mlx.taps import Call, array_of

Found = tuple[str, Call, str, Any]
EPSILON = {mx.float32: 2.0**-23, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}


def is_linear(module: nn.Module) -> bool:
    """A leaf with a matrix for a weight, quantised or not; not an embedding."""
    weight = getattr(module, "weight", None)
    embedding = isinstance(module, (nn.Embedding, nn.QuantizedEmbedding))
    return isinstance(weight, mx.array) and weight.ndim == 2 and not module.children() and not embedding


def find(
    mixer: Call | None, mlp: Call | None, children: list[Call], calls: dict[int, Call], config: dict[str, Any]
) -> Iterator[Found]:
    """(stream, call, side, columns) of every projection that could be proved."""
    if mixer is not None:
        inside = _linears(mixer.module, calls)
        final = _last(inside, mixer)
        if final is not None:
            yield "head_out", final, "input", None
            yield "o", final, "output", None
            yield from _attention(mixer, [c for c in inside if c is not final], final, config)
    if mlp is None:
        return
    bare = is_linear(mlp.module)
    inside = [c for c in children if is_linear(c.module)] if bare else _linears(mlp.module, calls)
    last = mlp if bare else _last(inside, mlp)
    if last is not None:
        yield "mlp_act", last, "input", None
        yield "down", last, "output", None
        yield from _mlp(None if bare else mlp, [c for c in inside if c is not last], last)


def _linears(module: nn.Module, calls: dict[int, Call]) -> list[Call]:
    found = [calls[id(m)] for m in module.modules() if is_linear(m) and id(m) in calls]
    return sorted(found, key=lambda c: c.index)


def _last(inside: list[Call], branch: Call) -> Call | None:
    """The linear map whose output is the branch's output (before a post-norm of the block)."""
    whole = branch.states
    for c in reversed(inside):
        states = c.states
        if (
            whole is not None
            and states is not None
            and states.shape == whole.shape
            and close(states, whole, 8)
        ):
            return c
    return None


def close(a: mx.array, b: mx.array, roundings: float = 8) -> bool:
    """Whether two arrays differ by no more than so many roundings of the largest entry."""
    gap = mx.max(mx.abs(a.astype(mx.float32) - b.astype(mx.float32)))
    return bool((gap <= roundings * EPSILON[a.dtype] * (mx.max(mx.abs(b.astype(mx.float32))) + 1e-6)).item())


def replay(
    branch: Call, target: Call, columns: Any, change: Callable[[mx.array], mx.array], last: Call
) -> mx.array:
    """The input of `last` when the branch runs again with (some columns of) the target's output changed."""
    seen: list[mx.array] = []

    def disturb(inner: Any, args: Any, kwargs: Any) -> mx.array:
        output = inner(*args, **kwargs)
        if columns is None:
            return change(output)
        out = mx.array(output)
        out[..., columns] = change(output[..., columns])
        return out

    def look(inner: Any, args: Any, kwargs: Any) -> Any:
        seen.append(args[0])
        return inner(*args, **kwargs)

    with watching([(target.module, disturb), (last.module, look)]):
        branch.again()
    return seen[-1]


def _attention(mixer: Call, before: list[Call], last: Call, config: dict[str, Any]) -> Iterator[Found]:
    """q, k and v where all three are real; none for mixers that are not softmax attention."""
    whole = [(role, c, None) for c in before if (role := _role(mixer, c, None, last))]
    found = _one_of_each(whole)
    for layout in [] if found else _layouts(before, config):
        roles = [(role, c, cols) for c, cols in layout if (role := _role(mixer, c, cols, last))]
        if (found := _one_of_each(roles)) is not None:
            break
    for stream, c, columns in found or []:
        yield stream, c, "output", columns


def _one_of_each(roles: list[tuple[str, Call, Any]]) -> list[tuple[str, Call, Any]] | None:
    by = {name: [r for r in roles if r[0] == name] for name in ("q", "k", "v")}
    return [found[0] for found in by.values()] if all(len(found) == 1 for found in by.values()) else None


def _role(mixer: Call, target: Call, columns: Any, last: Call) -> str | None:
    plain, states = last.args[0], array_of(target.output)
    if states.ndim != 3:
        return None
    noise = mx.random.normal(states.shape, key=mx.random.key(0)).astype(states.dtype)
    noise = noise * (3 * (mx.std(states.astype(mx.float32)) + 1e-3)).astype(states.dtype)
    part = noise if columns is None else noise[..., columns]
    steps = mx.arange(states.shape[1])[None, :, None]

    def at(position: int) -> mx.array:
        mask = (steps == position % states.shape[1]).astype(states.dtype)
        return replay(mixer, target, columns, lambda x: x + mask * part, last)

    early, late = at(0), at(-1)
    if not mx.array_equal(early[:, 1:], plain[:, 1:]).item():
        double = replay(mixer, target, columns, lambda x: x * 2, last)
        return "v" if close(double, plain * 2) else "k"
    if mx.array_equal(late, plain).item():
        return None
    return "q" if mx.array_equal(early, plain).item() else "own"


def _layouts(before: list[Call], config: dict[str, Any]) -> Iterator[list[tuple[Call, Any]]]:
    """Ways in which fused projections are laid out: lists of (call, columns) for the parts."""
    heads = int(config["num_attention_heads"])
    groups = int(config.get("num_key_value_heads") or heads)
    for c in before:
        width = array_of(c.output).shape[-1]
        if width % (heads + 2 * groups) == 0:
            size = width // (heads + 2 * groups)
            q, k = heads * size, groups * size
            yield [(c, slice(0, q)), (c, slice(q, q + k)), (c, slice(q + k, width))]
            grid = mx.arange(width).reshape(groups, heads // groups + 2, size)
            yield [(c, grid[:, :-2].flatten()), (c, grid[:, -2].flatten()), (c, grid[:, -1].flatten())]
        if width % 3 == 0:
            third = width // 3
            yield [(c, slice(i * third, (i + 1) * third)) for i in range(3)]


def _mlp(branch: Call | None, before: list[Call], last: Call) -> Iterator[Found]:
    """up, and gate where there is one. `branch` is None for linear maps that are the block's own children."""
    width = last.args[0].shape[-1]
    single = [c for c in before if array_of(c.output).shape[-1] == width]
    if len(before) == 1 and single:
        yield "up", single[0], "output", None
        return
    if branch is None:
        return
    double = [c for c in before if array_of(c.output).shape[-1] == 2 * width]
    if len(before) == 1 and double:
        options = [[(double[0], slice(0, width)), (double[0], slice(width, 2 * width))]]
    elif len(single) == 2 and len(before) == 2:
        options = [[(c, None) for c in single]]
    else:
        return
    for option in options:
        odd = [close(replay(branch, c, cols, mx.negative, last), -last.args[0]) for c, cols in option]
        if sorted(odd) == [False, True]:
            for is_up, (c, cols) in zip(odd, option, strict=True):
                yield ("up" if is_up else "gate"), c, "output", cols
