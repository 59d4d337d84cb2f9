"""The Triton body against the torch body, under Triton's interpreter: on a processor, one row after the other."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from engines.test_vllm_kernel import LAYERS, World, plans_of  # noqa: E402
from engines.test_vllm_kernel import WIDTH as STATE  # noqa: E402
from trimtab.engines.vllm import op  # noqa: E402
from trimtab.engines.vllm.edits import GateCheck, GeneralEdit, Measure, Pass, Units  # noqa: E402
from trimtab.engines.vllm.kernel import Item, Kernel  # noqa: E402
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json  # noqa: E402

pytestmark = pytest.mark.engine
TOKENS, WIDTH, BANK = 9, 40, 6  # the width is no power of two


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
inside = pytest.mark.skipif(
    not INTERPRETED, reason="runs in the process that test_under_the_interpreter starts"
)


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_under_the_interpreter():
    """Triton decides when it is imported whether it compiles or interprets, so this takes a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(KINDS) * 6 + 1 + len(THROUGH)} passed" in done.stdout


@pytest.fixture(scope="module")
def body():
    from trimtab.engines.vllm import triton_body

    return triton_body


def make(
    seed: int, rows: slice | torch.Tensor, depth: int, **kinds: bool
) -> tuple[GeneralEdit, torch.Tensor]:
    """A random edit of every kind that is asked for, and a bank."""
    rng = np.random.default_rng(seed)
    n = rows.stop - rows.start if isinstance(rows, slice) else len(rows)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    bank = torch.nn.functional.normalize(tensor(BANK, WIDTH), dim=-1)
    bank[0] = 0.0
    passes = []
    for k in range(depth):
        one = seed % 2 == 0 and k == 0  # numbers that all rows share
        m = 1 if one else n
        index = 2 if one else torch.from_numpy(rng.integers(0, BANK, n))
        base, slope = torch.zeros(3, m, 1), torch.zeros(3, m, 1)
        base[0], slope[0] = tensor(m, 1), tensor(m, 1)
        base[1], base[2] = -torch.inf, torch.inf
        if kinds.get("bounded"):
            held = torch.from_numpy(rng.random((m, 1)) < 0.7)
            base[1], base[2] = torch.where(held, -0.3, base[1]), torch.where(held, 0.4, base[2])
            slope[1:] = torch.where(held, -0.5, 0.0)
        gates = []
        if kinds.get("gated"):
            measure = Measure(rows, Units(bank, 1), tensor(n))
            gates = [GateCheck(measure, torch.ones(n), torch.zeros(n))]
        passes.append(
            Pass(
                Units(bank, index), base, slope, kinds.get("bounded", False),
                relative=0.1 * tensor(m, 1) if kinds.get("relative") else None,
                renormalise=torch.from_numpy(rng.random((m, 1)) < 0.6) if kinds.get("renormalise") else None,
                table=tensor(n, WIDTH) if kinds.get("table") and k else None,
                gates=gates,
            )
        )  # fmt: skip
    return GeneralEdit(rows, passes), bank


KINDS = [{}, {"bounded": True}, {"relative": True, "renormalise": True}, {"gated": True}, {"table": True}]
KINDS += [{k: True for kinds in KINDS for k in kinds}]


@inside
@pytest.mark.parametrize("kinds", KINDS, ids=lambda k: "-".join(k) or "plain")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("split", [False, True], ids=["one tensor", "two tensors"])
def test_the_kernel_does_what_the_torch_body_does(body, kinds, dtype, split):
    for seed, rows in enumerate((slice(2, 7), torch.tensor([0, 3, 4, 8]))):
        edit, _ = make(seed, rows, depth=3, **kinds)
        draw = torch.Generator().manual_seed(seed)
        hidden, residual = (torch.randn(TOKENS, WIDTH, generator=draw).to(dtype) for _ in range(2))
        want, got = hidden.clone(), hidden.clone()
        edit(want, residual if split else None)
        body.Launch.of(edit)(got, residual if split else None)
        assert (want != hidden).any()
        # Sums in another order: float32 to 2e-6, and at most one step of a half type.
        step = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        assert torch.allclose(got.float(), want.float(), rtol=step, atol=step)
        others = [t for t in range(TOKENS) if t not in set(np.arange(TOKENS)[rows].tolist())]
        assert torch.equal(got[others], hidden[others])


@inside
def test_rows_that_nothing_moves_keep_their_bits(body):
    edit, _ = make(1, slice(0, TOKENS), depth=2)
    for step in edit.passes:
        step.base[0], step.slope[0] = 0.0, 0.0
    hidden = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    hidden[0, 0] = -0.0
    got = hidden.clone()
    body.Launch.of(edit)(got, torch.full_like(hidden, 1e-3))
    assert torch.equal(got.view(torch.int16), hidden.view(torch.int16))


# --- the op --------------------------------------------------------------------------------------------------------

THROUGH = [(torch.float32, True), (torch.bfloat16, False)]
REQUESTS = 8
#: (first position, count): the prompt's beginning, and its end with what is generated.
CHUNKS = ((0, 4), (13, 4))


def programs(world: World, seed: int) -> list:
    """Random stacks of the contract's plans: every operator, gates, tables, caps, relative, renormalise, strengths."""
    rng, known = np.random.default_rng(seed), [p for p in plans_of(world).values() if p is not None]
    found = []
    for _ in range(REQUESTS):
        chosen = [known[i] for i in rng.choice(len(known), rng.integers(1, 5), replace=False)]
        plan = chosen[0]
        for other in chosen[1:]:
            plan = plan | other.scaled(float(rng.uniform(0.1, 1.0)))
        found.append(world.resolve(plan))
    return found


@inside
@pytest.mark.parametrize(("dtype", "split"), THROUGH, ids=str)
def test_the_op_does_the_same_with_either_body(body, dtype, split):
    """The same op on the same layers of the same batch, with a kernel of each body."""
    world, launched = World(), 0
    plans = {f"r{i}": plan for i, plan in enumerate(programs(world, 7))}
    kernels = [Kernel(range(LAYERS), STATE, lambda *_: None, body=name) for name in ("torch", "triton")]
    places = [op.enlist(kernel) for kernel in kernels]
    extra = {}
    for id, plan in plans.items():
        extra[id] = {KEY: Ticket(id, plan=plan_json(plan)).to_text()}
        for kernel in kernels:
            for name, array in plan.vectors.items():
                kernel.put(name, array)
    moved = 0
    for step in [[(id, *chunk) for id in plans] for chunk in CHUNKS]:
        items, at = [], 0
        for id, position, count in step:
            items.append(Item(id, at, at + count, position, extra[id]))
            at += count
        for kernel in kernels:
            kernel.begin()
            kernel.fill(items)
        assert kernels[1].step is not None
        launched += sum(isinstance(s.edit, body.Launch) for s in kernels[1].step.stages.values())
        for layer in range(LAYERS):
            states = np.concatenate([world.states[layer, p : p + n] for _, p, n in step])
            residual = torch.from_numpy(np.random.default_rng(layer).standard_normal(states.shape)).to(dtype)
            hidden = (
                torch.from_numpy(states).to(dtype) - residual if split else torch.from_numpy(states).to(dtype)
            )
            both = [hidden.clone(), hidden.clone()]
            for index, x in zip(places, both):
                torch.ops.trimtab.steer_(x, residual if split else None, op.address(index, layer))
            step_of = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
            size = max(1.0, float(both[0].float().abs().max()))
            assert (both[0].float() - both[1].float()).abs().max() <= step_of * size, (layer, step)
            moved += int((both[1] != hidden).any(1).sum())
        assert all(kernel.harvest() == {} for kernel in kernels)
    op.KERNELS.clear()
    assert launched >= 4 and moved > 4 * REQUESTS
