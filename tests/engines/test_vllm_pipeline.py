"""Several workers of one model without vLLM's processes: slices of layers, what goes from one to the next, who is
lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

from engines.registry import coordinates, gap, place  # noqa: E402
from engines.test_vllm_kernel import LAYERS, LENGTH, WIDTH, Runner, World, chunked, plans_of  # noqa: E402
from trimtab.engines.vllm.channel import Quorum  # noqa: E402
from trimtab.engines.vllm.kernel import Item, Kernel  # noqa: E402
from trimtab.engines.vllm.pipeline import Place, agree, pack, unpack  # noqa: E402
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json  # noqa: E402
from trimtab.errors import Unsupported  # noqa: E402
from trimtab.interventions import Ablate, Add, Gate  # noqa: E402
from trimtab.plans import SteeringPlan  # noqa: E402
from trimtab.sites import Site  # noqa: E402

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Stages(Runner):
    """The same steps through several kernels, each with a slice of the layers, one after the other."""

    def __init__(self, world: World, slices: list[range], split: bool = True) -> None:
        super().__init__(world, split)
        self.kernels = [
            Kernel(s, WIDTH, lambda *x, part=i: self.sent.append((part, *x)), depth=LAYERS)
            for i, s in enumerate(slices)
        ]

    def admit(self, id: str, plan: Any, **wants: Any) -> None:
        super().admit(id, plan, **wants)
        for kernel in self.kernels:
            for name, array in plan.vectors.items():
                kernel.put(name, array)

    def run(self, chunks: list[tuple[str, int, int]], skip: int | None = None, silent: bool = False) -> None:
        items, at = [], 0
        for id, position, count in chunks:
            items.append(Item(id, at, at + count, position, self.extra.get(id)))
            at += count
        told: Any = None
        for part, kernel in enumerate(self.kernels):
            kernel.begin()
            kernel.fill(items)
            if part:
                kernel.receive(*unpack(told))
            for layer in sorted(kernel.layers - {skip}):
                x = np.concatenate([self.world.states[layer, p : p + n] for _, p, n in chunks])
                residual = np.random.default_rng(layer).standard_normal(x.shape).astype(np.float32)
                hidden = torch.from_numpy(x - residual)
                kernel.visit(layer, hidden, torch.from_numpy(residual))
                for item, (id, p, n) in zip(items, chunks):
                    self.after.setdefault(id, np.full((LAYERS, LENGTH, WIDTH), np.nan, np.float32))
                    self.after[id][layer, p : p + n] = (hidden.numpy() + residual)[item.start : item.stop]
            self.lost = kernel.harvest()
            assert kernel.onward is not None
            told = None if silent else pack(self.lost, kernel.onward, 1)


SLICES = [[range(2), range(2, 4)], [range(1), range(1, 2), range(2, 4)]]


@pytest.mark.parametrize("slices", SLICES, ids=["two", "three"])
def test_every_plan_through_a_pipeline_is_the_oracles(world, slices):
    """Among them gates whose site is in another worker than their edit, with one in between that has neither."""
    plans = {name: world.resolve(plan) for name, plan in plans_of(world).items()}
    stages = Stages(world, slices)
    for name, plan in plans.items():
        stages.admit(name, plan)
    for step in chunked(list(plans), 4):
        stages.run(step)
        assert stages.lost == {}
    for name, plan in plans.items():
        want = world.trace_of(plan)
        for layer in range(LAYERS):
            error = np.abs(stages.after[name][layer] - want.after[Site(layer)]).max()
            assert error < 5e-6, f"{name}, layer {layer}: {error}"
    for kernel in stages.kernels:
        kernel.finish(plans)
        assert kernel.counts()["programs"] == kernel.counts()["bank"] == 0


def test_a_gate_across_workers_opens_some_rows_and_not_others(world):
    first, last = Site(0), Site(LAYERS - 1)
    gate = Gate(world.direction(first, 1), above=gap(coordinates(world, first, 1)), layer=0)
    plan = world.resolve(place(world, Add(amount=3.0), last, gate=gate))
    stages = Stages(world, SLICES[0])
    stages.admit("a", plan)
    stages.run([("a", 0, LENGTH)])
    moved = (np.abs(stages.after["a"][-1] - world.states[-1]) > 0.01).any(-1)
    assert 0 < moved.sum() < LENGTH
    stages.run([("a", 0, LENGTH)], silent=True)
    assert "does not say" in stages.lost["a"]  # and no coordinate of the step before is taken for this one's


def test_rows_of_every_layer_come_from_the_worker_that_has_it(world):
    plan = world.resolve(place(world, Add(amount=4.0), Site(2)))
    stages = Stages(world, SLICES[0])
    for kernel in stages.kernels:
        kernel.put_readout("r", {n: np.eye(3, WIDTH, dtype=np.float32) for n in (1, 2)})
    stages.admit("a", plan, capture=(0, 1, 3), ranges=((0, None),), readout="r")
    stages.run([("a", 0, LENGTH)])
    got = {(part, layer, r): rows for part, _, found in stages.sent for (_, _, layer, r, _), rows in found}
    assert set(got) == {(0, 0, ""), (0, 1, ""), (0, 1, "r"), (1, 2, "r"), (1, 3, "")}
    want = world.trace_of(plan)
    for (_, layer, readout), rows in got.items():
        truth = want.state(Site(layer), "after")
        assert np.abs(rows - (truth[:, :3] if readout else truth)).max() < 5e-6


@pytest.mark.parametrize("skip", [0, 3], ids=["first worker", "last worker"])
def test_a_layer_that_any_worker_misses_loses_the_request_in_the_last(world, skip):
    stages = Stages(world, SLICES[0])
    stages.admit("a", world.resolve(place(world, Add(amount=4.0), Site(2))))
    stages.run([("a", 0, 9), ("plain", 0, 4)], skip=skip)
    assert list(stages.lost) == ["a"] and f"layers [{skip}] were never reached" in stages.lost["a"]


def test_a_state_that_breaks_in_the_first_worker_loses_its_request_alone_in_the_last(world):
    strong = SteeringPlan(place(world, Add(amount=3e38), Site(1)).placements * 9)
    stages = Stages(world, SLICES[0])
    stages.admit("bad", world.resolve(strong))
    stages.admit("good", world.resolve(place(world, Ablate(), Site(3))))
    stages.run([("good", 0, 5), ("bad", 0, 9)])
    assert list(stages.lost) == ["bad"] and "after layer 1" in stages.lost["bad"]


@pytest.mark.parametrize("beyond", ["capture", "site", "gate"])
def test_layers_that_the_model_does_not_have_are_refused_and_not_passed_over(world, beyond):
    far = Site(LAYERS - 1)
    gate = Gate(world.direction(far, 1), above=0.0, layer=LAYERS - 1) if beyond == "gate" else None
    plan = world.resolve(place(world, Add(amount=1.0), Site(1) if beyond == "capture" else far, gate=gate))
    kernel, sent = Kernel(range(2), WIDTH, lambda *x: None, depth=3), {}
    for name, array in plan.vectors.items():
        kernel.put(name, array)
    sent["capture" if beyond == "capture" else "first"] = (7,) if beyond == "capture" else 0
    ticket = Ticket("a", plan=plan_json(plan), ranges=((0, None),), **sent)
    kernel.fill([Item("a", 0, 4, 0, {KEY: ticket.to_text()})])
    kernel.visit(0, torch.zeros(4, WIDTH), None)
    kernel.visit(1, torch.zeros(4, WIDTH), None)
    assert "layers 0 to 2" in kernel.harvest()["a"]


# --- words between workers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tensors", [1, 2, 3, 4])
def test_words_travel_whole_and_are_never_sent_in_slices(tensors):
    """vLLM sends a slice of a tensor from each of the workers that hold it where its size allows that."""
    for n in range(6):
        lost, gates = {"a" * n: "why" * n}, [np.arange(n, dtype=np.float32), np.empty(0, np.float32)]
        packed = pack(lost, gates, tensors)
        assert packed.dtype == torch.uint8 and (tensors == 1 or packed.numel() % tensors)
        back, found = unpack(packed)
        assert back == lost and all(np.array_equal(a, b) for a, b in zip(gates, found, strict=True))
    assert unpack(None) == (None, [])


class Among(Place):
    """A place whose peers have said what they have to say."""

    peers: list[tuple[bool | None, str]]

    def exchange(self, verdict: tuple[bool | None, str]) -> list[tuple[bool | None, str]]:
        return [*self.peers, verdict]


def among(last: bool, *peers: tuple[bool | None, str]) -> Among:
    found = Among(last=last)
    object.__setattr__(found, "peers", list(peers))
    return found


def test_workers_agree_on_the_convention_or_none_of_them_steers():
    def fails() -> bool:
        raise RuntimeError("no such module")

    assert agree(Place(), lambda: True) is True
    assert agree(among(False, (False, "")), fails) is False  # only the last one can probe
    assert agree(among(True, (None, "")), lambda: True) is True
    with pytest.raises(Unsupported, match="cannot tell"):
        agree(among(True, (None, "cannot tell")), lambda: True)
    with pytest.raises(Unsupported, match="RuntimeError: no such module"):
        agree(Place(), fails)
    with pytest.raises(Unsupported, match="agree"):
        agree(among(True, (False, "")), lambda: True)


def test_a_token_is_through_when_every_worker_says_so_and_lost_when_one_does():
    quorum, a, b = Quorum(), ("k", "a", 0, 5, ""), ("k", "b", 0, 2, "")
    lost = (*b[:4], "why")
    assert quorum.of(0, 2, [a, b]) == [] and quorum.of(1, 2, [a, lost]) == [a, lost]
    # Computed again after a preemption, and one worker is two steps ahead.
    assert quorum.of(0, 2, [a]) == [] and quorum.of(0, 2, [a]) == []
    assert quorum.of(1, 2, [a]) == [a] and quorum.of(1, 2, [a]) == [a]
    assert len(quorum) == 0
    assert quorum.of(0, 1, [a, lost]) == [a, lost]
