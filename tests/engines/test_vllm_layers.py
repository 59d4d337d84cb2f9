"""Decoder layers are found, the residual convention is measured, and the op is hung in: without vLLM."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from trimtab.engines.vllm import layers, op  # noqa: E402
from trimtab.engines.vllm.kernel import Kernel  # noqa: E402
from trimtab.errors import Unsupported  # noqa: E402

pytestmark = pytest.mark.engine
WIDTH = 8


class Norm(nn.Module):
    """Takes a state, or a state in two parts."""

    def __init__(self, adds: bool = True) -> None:
        super().__init__()
        self.adds = adds

    def forward(self, x, residual=None):
        if residual is None:
            return x
        return (x + residual if self.adds else x), residual


class Block(nn.Module):
    """Adds something to the residual stream, and hands it on in one of the ways that vLLM's layers do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear, self.how = nn.Linear(WIDTH, WIDTH), how

    def forward(self, positions, x, residual=None):
        whole = x if residual is None or self.how != "split" else x + residual
        branch = self.linear(whole)
        if self.how == "split":
            return branch, whole
        done = whole + branch
        return {"one": done, "none": (done, None)}.get(self.how, (done, whole))


class Model(nn.Module):
    """A model of such blocks; the norm is given what follows from how they hand on."""

    def __init__(self, how: str, n: int = 3) -> None:
        super().__init__()
        self.side, self.how = nn.ModuleList([nn.Linear(2, 2)]), how
        self.inner = nn.Module()
        self.inner.layers = nn.ModuleList(Block(how) for _ in range(n))
        self.norm = Norm(adds=how == "split")

    def forward(self, x):
        residual = None
        for layer in self.inner.layers:
            out = layer(None, x, residual) if self.how == "split" else layer(None, x)
            x, residual = out if isinstance(out, tuple) else (out, None)
        return self.norm(x, residual)[0] if self.how in ("split", "carried") else self.norm(x)


@pytest.mark.parametrize(
    ("how", "split"), [("split", True), ("one", False), ("none", False), ("pair", False)]
)
def test_the_residual_convention_is_measured_and_steering_reads_the_state(how, split):
    torch.manual_seed(0)
    model, x = Model(how), torch.randn(4, WIDTH)
    name, blocks = layers.find_layers(model, 3)
    assert name == "inner.layers"
    assert layers.is_split(model, list(blocks.values()), lambda: model(x), WIDTH) is split
    plain = model(x)
    states: list[torch.Tensor] = []

    class Spy(Kernel):
        def visit(self, layer, hidden, residual):
            states.append((hidden if residual is None else hidden + residual).clone())
            if layer == 1:
                hidden += 1.0

    layers.attach(blocks, op.enlist(Spy(range(3), WIDTH, lambda *_: None)), split)
    steered = model(x)
    op.KERNELS.clear()
    with torch.no_grad():
        reference, want = Model("one"), []
        reference.load_state_dict(model.state_dict(), strict=False)
        for i, block in enumerate(reference.inner.layers):
            x = block.linear(x) + x
            want.append(x)
            x = x + 1.0 if i == 1 else x
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(states, want, strict=True))
    assert torch.allclose(steered, want[-1], atol=1e-5) and not torch.allclose(steered, plain, atol=0.1)


def test_what_cannot_be_told_is_refused():
    a, b = torch.ones(4, WIDTH), 2 * torch.ones(4, WIDTH)
    with pytest.raises(Unsupported, match="Block"):
        layers.decide([a, b], [a * 7], torch.relu, "Block")
    with pytest.raises(Unsupported, match="Block"):
        layers.decide([a, torch.zeros(4, WIDTH)], [a], torch.relu, "Block")  # either reading fits
    with pytest.raises(Unsupported, match="finite"):
        layers.decide([a * float("nan"), b], [a], torch.relu, "Block")
    with pytest.raises(Unsupported, match="Block"):
        layers.decide([a], [], torch.relu, "Block")
    with pytest.raises(Unsupported, match="more than one state"):
        layers.decide([torch.ones(4, 3, WIDTH)], [a], torch.relu, "Block")
    assert layers.decide([a[None]], [a[None]], torch.relu, "Block") is False
    with pytest.raises(Unsupported, match="no module takes"):
        layers.decide([a, b], [a], None, "Block")
    with pytest.raises(Unsupported, match="5"):
        layers.find_layers(Model("one"), 5)


class Rms(nn.Module):
    """A norm that adds in float32 and rounds twice, as vLLM's do."""

    def __init__(self, weight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x, residual=None):
        whole = x.float() if residual is None else x.float() + residual.float()
        scaled = whole * torch.rsqrt(whole.pow(2).mean(-1, keepdim=True) + 1e-6)
        made = scaled.to(x.dtype) * self.weight
        return made if residual is None else (made, whole.to(x.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_the_convention_does_not_depend_on_how_sixteen_bits_are_rounded(dtype):
    """Single elements of two roundings of one state may differ by two of their last digits."""
    for seed in range(100):
        torch.manual_seed(seed)
        norm = Rms((1 + 0.3 * torch.randn(192)).to(dtype))
        a, b = torch.randn(4, 192).to(dtype), (3 * torch.randn(4, 192)).to(dtype)
        assert layers.decide([a, b], [a, b], norm, "Block") is True
        assert layers.decide([a, b], [a], norm, "Block") is False
        assert layers.decide([a, b], [a + b], norm, "Block") is True


def test_classes_are_wrapped_once_and_other_instances_stay_plain():
    torch.manual_seed(0)
    model, other, x = Model("one"), Model("one"), torch.randn(4, WIDTH)
    plain = other(x)
    calls: list[int] = []

    class Count(Kernel):
        def visit(self, layer, hidden, residual):
            calls.append(layer)

    blocks = dict(enumerate(model.inner.layers))
    for _ in range(2):
        layers.attach(blocks, op.enlist(Count(range(3), WIDTH, lambda *_: None)), False)
    assert torch.equal(other(x), plain) and not calls
    model(x)
    op.KERNELS.clear()
    assert calls == [0, 1, 2]


def test_layers_that_are_alike_are_alike_to_the_compiler():
    """A number of the layer in its code would make vLLM compile every layer by itself."""
    torch.manual_seed(0)
    model, codes = Model("split"), []

    class Count(Kernel):
        def visit(self, layer, hidden, residual):
            codes.append(layer)

    def backend(graph, inputs):
        codes.append(graph.code)
        return graph.forward

    blocks = dict(enumerate(model.inner.layers))
    layers.attach(blocks, op.enlist(Count(range(3), WIDTH, lambda *_: None)), True)
    x = torch.randn(4, WIDTH)
    for block in blocks.values():
        torch._dynamo.reset()
        torch.compile(block, backend=backend, fullgraph=True)(None, x, x)
    op.KERNELS.clear()
    assert [c for c in codes if isinstance(c, int)] == [0, 1, 2]
    traced = {c for c in codes if isinstance(c, str)}
    assert len(traced) == 1 and "steer_" in traced.pop()


def test_another_tower_of_as_many_layers_is_not_taken_for_the_text():
    """Where the model says which part of it is the text model; of lists side by side, the largest."""
    seeing = nn.Module()
    seeing.visual = nn.Module()
    seeing.visual.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    seeing.language_model = Model("split")
    seeing.get_language_model = lambda: seeing.language_model
    assert layers.find_layers(seeing, 3) == (
        "inner.layers",
        dict(enumerate(seeing.language_model.inner.layers)),
    )
    gates, blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(3)), seeing.language_model.inner.layers
    del seeing.language_model.inner.layers  # so that the smaller list is met first
    seeing.language_model.inner.gates, seeing.language_model.inner.layers = gates, blocks
    assert layers.find_layers(seeing, 3)[0] == "inner.layers"
