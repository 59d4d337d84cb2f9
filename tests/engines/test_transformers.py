"""What only the transformers engine has: batched sampling, plain steered calls, gradients, loading errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the transformers engine needs torch")
pytest.importorskip("transformers", reason="the transformers engine needs transformers")

from engines.checkpoints import save_tiny_llama  # noqa: E402
from engines.tiny import FAMILIES, Words  # noqa: E402
from trimtab.directions import Direction  # noqa: E402
from trimtab.engines.requests import CaptureSpec, Request, Sampling, ScoreRequest  # noqa: E402
from trimtab.engines.transformers import TransformersEngine, proof  # noqa: E402
from trimtab.engines.transformers.sampler import Sampler  # noqa: E402
from trimtab.errors import FormatError, InputError, MissingDependency, TrimtabError, Unsupported  # noqa: E402
from trimtab.interventions import Ablate  # noqa: E402
from trimtab.objectives import ChoiceLogRatio, ContinuationNLL  # noqa: E402
from trimtab.plans import Placement, SteeringPlan  # noqa: E402
from trimtab.prompts import Prompt  # noqa: E402
from trimtab.readouts import Readout  # noqa: E402
from trimtab.sites import Site  # noqa: E402

pytestmark = pytest.mark.engine
TOKENS = [3, 17, 50, 9, 77]


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(FAMILIES["qwen3"](), Words(), id="tiny")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("checkpoint") / "llama")


def direction(seed: int = 0, layer: int = 1, stream: str = "resid_post") -> Direction:
    return Direction.from_raw("d", Site(layer, stream), np.random.default_rng(seed).standard_normal(64))


def add(amount: float = 4.0, **options) -> SteeringPlan:
    return SteeringPlan.add(direction(), amount=amount, **options)


# --- sampling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.7, 0), (0.3, 0), (1.0, 3), (0.6, 4)])
def test_tokens_are_drawn_from_the_truncated_distribution(top_p, top_k):
    """4,000 draws against the distribution written out by hand."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0])
    weights = torch.softmax(logits / 0.8, 0).numpy().astype(float)
    order = np.argsort(-weights)
    kept = order[: top_k or None]
    mass = weights[kept] / weights[kept].sum()
    kept = kept[np.cumsum(mass) - mass < top_p]
    want = np.zeros(6)
    want[kept] = weights[kept] / weights[kept].sum()
    rows = 4000
    sampling = Sampling(temperature=0.8, top_p=top_p, top_k=top_k, seed=5)
    sampler = Sampler([(sampling, j) for j in range(rows)], torch.device("cpu"))
    tokens, logprobs = sampler.choose(logits.expand(rows, -1).clone(), [0] * rows)
    got = np.bincount(tokens.numpy(), minlength=6) / rows
    assert not got[want == 0].any()
    np.testing.assert_allclose(got, want, atol=4 * np.sqrt(0.25 / rows))
    np.testing.assert_allclose(logprobs, torch.log_softmax(logits, 0)[tokens], atol=1e-5)


def test_seeded_samples_are_the_same_in_any_batch(engine):
    sampling = Sampling(max_tokens=12, temperature=1.2, top_p=0.9, seed=11, n=3, ignore_eos=True)
    asked = Request(TOKENS, add(), sampling)
    others = [
        Request(TOKENS[:n], None, Sampling(max_tokens=5 + n, temperature=1.0, seed=n)) for n in (1, 2, 4)
    ]
    (alone,) = engine.generate(asked)
    among = engine.generate([others[0], asked, *others[1:]])[1]
    assert [s.tokens for s in alone.samples] == [s.tokens for s in among.samples]
    assert len({s.tokens for s in alone.samples}) == 3


def test_stream_and_generate_agree(engine):
    stop = engine.generate(Request(TOKENS, None, Sampling(max_tokens=8, ignore_eos=True)))[0].text.split()[3]
    request = Request(TOKENS, None, Sampling(max_tokens=8, ignore_eos=True, stop=(stop,)))
    events = list(engine.stream(request))
    (done,) = engine.generate(request)
    final = events[-1].sample
    assert final.tokens == done.tokens and final.finish == done.samples[0].finish == "stop"
    assert "".join(e.text for e in events) == final.text == done.text and stop not in done.text
    assert [e.token for e in events[:-1]] == list(done.tokens)
    assert len(done.tokens) < 8


# --- captures and readings -----------------------------------------------------------------------------------------


def test_captures_and_readings_while_generating_are_those_of_a_full_forward(engine):
    sites = (Site(0), Site(2), Site(1, "mlp_out"))
    rows = {s: np.random.default_rng(7).standard_normal((2, 64)).astype(np.float32) for s in sites[:2]}
    none, one = {s: np.zeros(2) for s in rows}, {s: np.ones(2) for s in rows}
    readout = Readout(("a", "b"), rows, none, one)
    sampling = Sampling(max_tokens=7, temperature=1.0, seed=0, n=2, ignore_eos=True)
    requests = [
        Request(TOKENS, add(), sampling, CaptureSpec(sites, {"after": 1}), readout),
        Request(TOKENS[:2], None, Sampling(max_tokens=4, ignore_eos=True)),
    ]
    completion = engine.generate(requests)[0]
    events = [e for e in engine.stream(requests) if e.request == 0 and e.token is not None]
    for j, sample in enumerate(completion.samples):
        whole = TOKENS + list(sample.tokens[:-1])
        (full,) = engine.capture([whole], sites, positions={"after": 1}, plan=add())
        np.testing.assert_array_equal(sample.capture.positions, full.positions)
        for site in sites:
            np.testing.assert_allclose(sample.capture[site], full[site], atol=2e-5)
        emitting = full.positions >= len(TOKENS) - 1
        want = np.stack([full[s][emitting] @ rows[s].T for s in rows], axis=1)
        np.testing.assert_allclose(sample.readings.values, want, atol=5e-4)
        assert sample.readings.positions.tolist() == full.positions[emitting].tolist()
        streamed = np.stack([e.reading for e in events if e.index == j])
        np.testing.assert_allclose(streamed, sample.readings.values, atol=5e-4)


def test_a_capture_runs_no_block_above_the_deepest_site(engine):
    calls = []
    handles = [
        b.register_forward_hook(lambda *a, i=i: calls.append(i)) for i, b in enumerate(engine.anatomy.blocks)
    ]
    head = engine.model.lm_head.register_forward_hook(lambda *a: calls.append("logits"))
    try:
        engine.capture([TOKENS], [Site(0), Site(1, "attn_out")])
    finally:
        for handle in (*handles, head):
            handle.remove()
    assert calls == [0]


def test_rows_that_no_plan_touches_keep_their_bits(engine):
    item = [TOKENS, TOKENS[::-1]]
    plain = engine.capture(item, [1, 2])
    plans = [add(), SteeringPlan(Placement(Ablate(), direction(), layers="1"))]
    for plan in plans:
        steered = engine.capture(item, [1, 2], plan=plan | add(positions={"ranges": [[3, 4]]}))
        later = engine.capture(item, [1, 2], plan=add(positions={"ranges": [[4, 5]]}))
        for a, b, c in zip(plain, steered, later, strict=True):
            assert not np.array_equal(a[1], b[1])
            np.testing.assert_array_equal(a[1][:4], c[1][:4])
            assert not np.array_equal(a[1][4], c[1][4])


def test_negative_zero_survives_beside_an_edited_row(engine):
    from trimtab.engines.transformers.compiling import Bank, compile_edit

    d = direction()
    plan = add().resolve(Prompt(TOKENS), {}, engine.info)
    placed = [[(p, plan.vectors) for p in plan.placements], []]
    bank = Bank(torch.device("cpu"))
    edit = compile_edit(placed, np.array([[4], [4]]), 64, torch.float32, bank, [], {})
    h = torch.full((2, 1, 64), -0.0)
    edit(h)
    assert torch.signbit(h[1]).all()
    np.testing.assert_allclose(h[0, 0].numpy(), 4 * d.unit, atol=1e-6)


# --- plain calls ---------------------------------------------------------------------------------------------------


def test_plain_calls_are_steered_inside_the_context(engine):
    ids = torch.tensor([TOKENS])
    plan = add(positions={"after": 2}) | SteeringPlan(Placement(Ablate(), direction(1), layers="0"))
    with torch.no_grad():
        before = engine.model(ids).logits
        with engine.steered(plan):
            inside = engine.model(ids).logits
            text = engine.model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
        after = engine.model(ids).logits
    (score,) = engine.score([ScoreRequest(TOKENS, None, plan, "all")])
    np.testing.assert_allclose(torch.log_softmax(inside[0], -1), score.distribution, atol=1e-4)
    assert torch.equal(before, after) and not torch.allclose(before, inside, atol=1e-3)
    (done,) = engine.generate(Request(TOKENS, plan, Sampling(max_tokens=8)))
    assert text[0, len(TOKENS) :].tolist() == list(done.tokens)


def test_requests_inside_the_context_are_steered_once(engine):
    with engine.steered(add()):
        (inside,) = engine.capture([TOKENS], [1])
    (asked,) = engine.capture([TOKENS], [1], plan=add())
    np.testing.assert_array_equal(inside[1], asked[1])


def test_plain_calls_refuse_positions_that_need_a_prompt(engine):
    with engine.steered(add(positions="generated")), pytest.raises(Unsupported, match="no prompt"):
        engine.model(torch.tensor([TOKENS]))
    assert engine.model(torch.tensor([TOKENS])).logits.shape[1] == len(TOKENS)


def test_padding_in_a_plain_call_does_not_shift_positions(engine):
    ids = torch.tensor([[0, 0, *TOKENS[:3]], TOKENS])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    plan = add(positions={"ranges": [[1, 2]]})
    with torch.no_grad(), engine.steered(plan):
        batched = engine.model(
            ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
        ).logits
    (alone,) = engine.score([ScoreRequest(TOKENS[:3], None, plan, "last")])
    np.testing.assert_allclose(torch.log_softmax(batched[0, -1], -1), alone.distribution, atol=1e-4)


# --- gradients -----------------------------------------------------------------------------------------------------

OBJECTIVES = {
    "nll": ContinuationNLL(starts=(2, 1, 4)),
    "choice": ChoiceLogRatio(yes=(5, 6), no=(7,), signs=(1, -1, 1)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("site", [Site(1), Site(0, "mlp_out"), Site(2, "head_out")], ids=str)
def test_gradient_is_that_of_finite_differences(engine, name, site):
    prompts = [Prompt(TOKENS), Prompt(TOKENS[:3]), Prompt([*TOKENS, 8])]
    vector = 0.3 * np.random.default_rng(1).standard_normal(64)
    coefficients = (1.0, -0.5, 2.0)

    def run(v):
        return engine.gradient(prompts, site, v, OBJECTIVES[name], coefficients)

    losses, found = run(vector)
    assert losses.shape == (3,) and losses.dtype == found.dtype == np.float64
    for seed in range(3):
        way = np.random.default_rng(seed).standard_normal(64)
        step = 1e-2 * way / np.linalg.norm(way)
        slope = (run(vector + step)[0].sum() - run(vector - step)[0].sum()) / (2 * np.linalg.norm(step))
        assert slope == pytest.approx(found @ step / np.linalg.norm(step), rel=0.03, abs=3e-3)
    assert all(p.requires_grad for p in engine.model.parameters())


def test_gradient_losses_are_those_of_scoring(engine):
    plan = SteeringPlan.add(direction(), amount=1.5)
    losses, _ = engine.gradient([Prompt(TOKENS)], Site(1), direction().unit, ContinuationNLL((2,)), [1.5])
    (score,) = engine.score([ScoreRequest(TOKENS[:2], TOKENS[2:], plan)])
    assert losses[0] == pytest.approx(-score.logprobs.mean(), abs=1e-5)


# --- loading -------------------------------------------------------------------------------------------------------


def test_loading_says_what_is_wrong(checkpoint, tmp_path):
    with pytest.raises(InputError, match="no model directory"):
        TransformersEngine.load(str(tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(FormatError, match="truncated"):
        TransformersEngine.load(broken)
    weights.unlink()
    with pytest.raises(FormatError, match="no weights"):
        TransformersEngine.load(broken)
    (broken / "config.json").unlink()
    with pytest.raises(FormatError, match="config.json"):
        TransformersEngine.load(broken)
    with pytest.raises(InputError, match="dtype"):
        TransformersEngine.load(checkpoint, dtype="float8")
    with pytest.raises(MissingDependency, match="bitsandbytes"):
        TransformersEngine.load(checkpoint, quantization="4bit")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_steered_too(checkpoint, dtype):
    engine = TransformersEngine.load(checkpoint, dtype=dtype)
    assert engine.info.dtype == dtype
    d = Direction.from_raw("d", Site(3), np.random.default_rng(0).standard_normal(64))
    text = "Hello you"
    (plain,), (moved,), (gone,) = (
        engine.capture([engine._encode_text(text)], [3], plan=p)
        for p in (None, SteeringPlan.add(d, amount=20.0), SteeringPlan(Placement(Ablate(), d, layers="3")))
    )
    rounding = 2.0**-7 * np.abs(moved[3]).max()
    np.testing.assert_allclose(moved[3], plain[3] + 20 * d.unit, atol=2 * rounding)
    assert np.abs(gone[3] @ d.unit).max() < rounding < np.abs(plain[3] @ d.unit).max()


def test_a_bf16_checkpoint_is_float32_on_a_cpu(checkpoint, tmp_path):
    engine = TransformersEngine.load(checkpoint, dtype="bfloat16")
    engine.model.save_pretrained(tmp_path / "bf16")
    engine.tokenizer.save_pretrained(tmp_path / "bf16")
    if torch.cuda.is_available():
        pytest.skip("on a GPU the checkpoint's own dtype is kept")
    again = TransformersEngine.load(tmp_path / "bf16")
    assert again.info.dtype == "float32" and again.info.template_hash and again.info.context_length == 128
    assert again.info.revision == TransformersEngine.load(tmp_path / "bf16").info.revision
    assert again.info.revision != TransformersEngine.load(checkpoint).info.revision


def test_a_model_whose_edits_get_lost_does_not_load(monkeypatch):
    from trimtab.engines.transformers.kernel import AddEdit

    monkeypatch.setattr(AddEdit, "__call__", lambda self, h: h)
    monkeypatch.setattr("trimtab.engines.transformers.stations.AddEdit", type(None))
    with pytest.raises(TrimtabError, match="cannot be steered"):
        TransformersEngine(FAMILIES["llama"](), Words(), id="lost")
    assert callable(proof.prove)


def test_bad_tokens_and_long_prompts_are_refused(engine):
    with pytest.raises(InputError, match="token 128 does not exist"):
        engine.generate(Request([1, 128]))
    with pytest.raises(InputError, match="token 128"):
        engine.capture([[1, 128]], [0])
    with pytest.raises(InputError, match="context"):
        engine.generate(Request([1] * 120, sampling=Sampling(max_tokens=20)))


# --- a real model --------------------------------------------------------------------------------------------------


def test_a_trained_model_writes_what_transformers_writes(shared_models):
    path = shared_models / "stories260K" / "hf"
    engine = TransformersEngine.load(path)
    (done,) = engine.generate(Request("Once upon a time", sampling=Sampling(max_tokens=60)))
    ids = engine.tokenizer("Once upon a time", return_tensors="pt").input_ids
    want = engine.model.generate(ids, max_new_tokens=60, do_sample=False)[0, ids.shape[1] :]
    assert list(done.tokens) == want.tolist() and "there was a" in done.text
    assert len(engine.info.widths) == 13 * 5
