"""The parts of the vLLM engine that need no vLLM: cache keys, layers, records, arrays, seeds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from trimtab.engines.vllm import (  # noqa: E402
    cache_keys,
    extension_points,
    layers,
    ledger,
    losses,
    op,
    seeds,
    worker,
)
from trimtab.engines.vllm.kernel import Kernel  # noqa: E402
from trimtab.engines.vllm.ledger import Ledger  # noqa: E402
from trimtab.engines.vllm.shelf import Shelf  # noqa: E402
from trimtab.engines.vllm.ticket import KEY, Ticket  # noqa: E402
from trimtab.errors import SteeringLost, Unsupported  # noqa: E402
from trimtab.readouts import Readout  # noqa: E402
from trimtab.sites import Site  # noqa: E402

pytestmark = pytest.mark.engine
WIDTH = 8


# --- cache keys ----------------------------------------------------------------------------------------------------


def args(first: int | None, fingerprint: str = "f", epoch: int = 0) -> dict[str, str]:
    return {KEY: Ticket("k", epoch, {"fingerprint": fingerprint}, first).to_text()}


def test_the_key_enters_at_the_block_of_the_first_steered_token():
    found = [cache_keys.extra_key(args(40), 32 * i, 32 * i + 32) for i in range(4)]
    assert [f is not None for f in found] == [False, True, False, False]
    assert cache_keys.extra_key(args(None), 0, 32) is None
    assert cache_keys.extra_key(None, 0, 32) is cache_keys.extra_key({"other": 1}, 0, 32) is None


def test_the_key_is_the_content_and_not_who_asks():
    one, same = args(0), {KEY: Ticket("another", 0, {"fingerprint": "f"}, 0, (1,), ((0, None),)).to_text()}
    assert cache_keys.extra_key(one, 0, 32) == cache_keys.extra_key(same, 0, 32)
    keys = [cache_keys.extra_key(a, 0, 32) for a in (one, args(0, "g"), args(0, epoch=1))]
    assert len(set(keys)) == 3


def test_a_malformed_ticket_shares_with_nobody_and_does_not_stop_the_scheduler():
    a, b = ({KEY: text} for text in ("{", "[]"))
    assert cache_keys.extra_key(a, 0, 32) not in (None, cache_keys.extra_key(b, 0, 32))


# --- layers --------------------------------------------------------------------------------------------------------


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
    assert layers.is_split(model, blocks, lambda: model(x), WIDTH) is split
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


def test_classes_are_wrapped_once_and_other_instances_stay_plain():
    torch.manual_seed(0)
    model, other, x = Model("one"), Model("one"), torch.randn(4, WIDTH)
    plain = other(x)
    calls: list[int] = []

    class Count(Kernel):
        def visit(self, layer, hidden, residual):
            calls.append(layer)

    blocks = list(model.inner.layers)
    for _ in range(2):
        layers.attach(blocks, op.enlist(Count(range(3), WIDTH, lambda *_: None)), False)
    assert torch.equal(other(x), plain) and not calls
    model(x)
    op.KERNELS.clear()
    assert calls == [0, 1, 2]


# --- records -------------------------------------------------------------------------------------------------------


def test_rows_are_put_together_by_position_and_the_last_one_wins():
    book = Ledger()
    record = book.open("k", 10)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    book.take([("k", "id", 4, 3, "")], [(("k", "id", 1, "", ((4, 7),)), rows[4:7])])
    book.take([("k", "id", 0, 5, "")], [(("k", "id", 1, "", ((0, 1), (2, 5))), rows[[0, 2, 3, 4]] + 100)])
    assert np.array_equal(record.rows(1, np.array([0, 2, 4, 6])), [*(rows[[0, 2, 4]] + 100), rows[6]])
    with pytest.raises(SteeringLost, match="1 of 2"):
        record.rows(1, np.array([0, 1]))
    book.whole(record, 0, 7)


def test_waiting_ends_with_the_result_with_a_loss_or_with_patience(monkeypatch):
    book = Ledger()
    record = book.open("k", 10)
    done = []
    waiter = threading.Thread(target=lambda: done.append(book.whole(record, 2, 6)))
    waiter.start()
    book.take([("k", "id", 2, 3, "")], [])
    assert not done
    book.take([("k", "id", 5, 1, "")], [])
    waiter.join(5)
    assert done == [None]
    monkeypatch.setattr(ledger, "PATIENCE", 0.05)
    with pytest.raises(SteeringLost, match="did not arrive"):
        book.whole(record, 0, 6)
    book.take([("k", "id", 0, 2, "layers [3] were never reached")], [])
    with pytest.raises(SteeringLost, match="never reached"):
        book.whole(record, 0, 6)
    book.close("k")
    book.take([("k", "id", 0, 2, "")], [(("k", "id", 1, "", ((0, 1),)), np.zeros((1, 2), np.float32))])
    assert len(book) == 0


# --- arrays --------------------------------------------------------------------------------------------------------


class Workers:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __call__(self, method: str, *args: object) -> None:
        self.calls.append((method, *args))

    def count(self, method: str) -> int:
        return sum(m == method for m, *_ in self.calls)


def test_arrays_are_sent_once_kept_while_used_and_dropped_when_there_are_too_many():
    workers = Workers()
    shelf = Shelf(workers, idle=3 * 40)
    arrays = {f"a{i}": np.full(10, i, np.float32) for i in range(6)}
    held = [shelf.hold({n: a}) for n, a in arrays.items()]
    shelf.hold({"a0": arrays["a0"]})
    assert workers.count("trimtab_put") == 6
    for names in held:
        shelf.release(names)
    dropped = [n for m, *rest in workers.calls if m == "trimtab_drop" for n in rest[0]]
    assert dropped == ["a1", "a2"]  # a0 is still used; three idle ones may stay
    shelf.hold({"a1": arrays["a1"], "a5": arrays["a5"]})
    assert workers.count("trimtab_put") == 7
    shelf.forget()
    shelf.hold({"a5": arrays["a5"]})
    assert workers.count("trimtab_put") == 8
    for names in (("a0",), ("a1", "a5"), ("a5",)):
        shelf.release(names)


def test_readouts_go_by_their_content():
    workers = Workers()
    shelf = Shelf(workers)
    site = Site(2)

    def readout(concept: str, value: float) -> Readout:
        return Readout((concept,), {site: np.full((1, 4), value)}, {site: np.zeros(1)}, {site: np.ones(1)})

    names = [shelf.hold_readout(readout(c, v)) for c, v in (("a", 1.0), ("b", 1.0), ("a", 2.0))]
    assert names[0] == names[1] != names[2]
    assert workers.count("trimtab_put_readout") == 2


# --- seeds ---------------------------------------------------------------------------------------------------------


def runner(computed: int, count: int, total: int, generator: torch.Generator) -> tuple:
    request = SimpleNamespace(num_tokens=total, generator=generator)
    batch = SimpleNamespace(generators={0: generator}, req_ids=["r"], num_computed_tokens_cpu=[computed])
    scheduled = SimpleNamespace(num_scheduled_tokens={"r": count})
    return SimpleNamespace(input_batch=batch, requests={"r": request}), scheduled


def test_a_draw_after_a_chunk_is_taken_back():
    want = torch.rand(3, generator=torch.Generator().manual_seed(4))
    run, chunk = runner(0, 8, 20, torch.Generator().manual_seed(4))
    for computed, count in ((0, 8), (8, 8)):
        run.input_batch.num_computed_tokens_cpu[0] = computed
        chunk.num_scheduled_tokens["r"] = count
        seeds.protect(run, chunk)
        generator = run.input_batch.generators[0]
        torch.rand(3, generator=generator)
        generator.set_offset(generator.get_offset() - 4)  # as vLLM does it
    run.input_batch.num_computed_tokens_cpu[0] = 16
    chunk.num_scheduled_tokens["r"] = 4
    seeds.protect(run, chunk)
    generator = run.input_batch.generators[0]
    assert run.requests["r"].generator is generator
    assert torch.equal(torch.rand(3, generator=generator), want)
    with pytest.raises(RuntimeError):
        torch.Generator().get_offset()  # why this is needed


# --- extension points ----------------------------------------------------------------------------------------------


def test_what_is_missing_is_named(monkeypatch):
    here: Callable[..., list[str]] = extension_points.missing
    points = (
        ("trimtab.engines.vllm.kernel", "Kernel.fill", ("items",), "see a batch"),
        ("trimtab.engines.vllm.kernel", "Kernel.fill", ("others",), "see another"),
        ("trimtab.engines.vllm.kernel", "Kernel.nothing", (), "do nothing"),
        ("trimtab.engines.vllm.nowhere", "x", (), "be nowhere"),
    )
    monkeypatch.setattr(extension_points, "POINTS", points)
    found = here()
    assert len(found) == 3
    assert "others" in found[0] and "nothing" in found[1] and "nowhere" in found[2]


def test_a_family_without_one_residual_stream_is_refused_by_name():
    extension_points.check_family("Gemma3ForCausalLM")
    for name in ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"):
        with pytest.raises(Unsupported, match=f"{name}.*four versions"):
            extension_points.check_family(name)


def test_where_nothing_is_steered_a_steered_request_is_lost_and_a_plain_one_is_not():
    output, told = SimpleNamespace(), SimpleNamespace(extra_args={KEY: "whatever"})
    runner = SimpleNamespace(execute_model=lambda scheduled: "ran", sample_tokens=lambda grammar: output)
    worker.refuse(runner, "speculation")
    new = [
        SimpleNamespace(req_id="a", sampling_params=told),
        SimpleNamespace(req_id="b", sampling_params=SimpleNamespace(extra_args={"other": 1})),
        SimpleNamespace(req_id="c", sampling_params=SimpleNamespace(extra_args=None)),
        SimpleNamespace(req_id="d", sampling_params=None),
    ]
    assert runner.execute_model(SimpleNamespace(scheduled_new_reqs=new)) == "ran"
    assert runner.sample_tokens(None) is output and getattr(output, losses.ATTRIBUTE) == {"a": "speculation"}
    delattr(output, losses.ATTRIBUTE)
    runner.execute_model(SimpleNamespace(scheduled_new_reqs=[]))
    assert not hasattr(runner.sample_tokens(None), losses.ATTRIBUTE)


def config(**changes: object) -> SimpleNamespace:
    parallel = {"pipeline_parallel_size": 1, "data_parallel_size": 1, "enable_dbo": False}
    parallel |= {k: v for k, v in changes.items() if k in parallel}
    rest = {"use_v2_model_runner": False, "speculative_config": None, "kv_transfer_config": None}
    rest |= {k: v for k, v in changes.items() if k in rest}
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**parallel),
        device_config=SimpleNamespace(device_type=changes.get("device", "cpu")),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
        compilation_config=SimpleNamespace(pass_config=SimpleNamespace()),
        **rest,
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_v2_model_runner": True}, "V2"),
        ({"device": "cuda"}, "CPU"),
        ({"pipeline_parallel_size": 2}, "pipeline"),
        ({"data_parallel_size": 2}, "data"),
        ({"enable_dbo": True}, "overlap"),
        ({"speculative_config": object()}, "speculative"),
        ({"kv_transfer_config": object()}, "transferred"),
    ],
)
def test_modes_that_are_not_proven_are_refused_in_words(change, word):
    extension_points.check_config(config())
    with pytest.raises(Unsupported, match=word):
        extension_points.check_config(config(**change))
