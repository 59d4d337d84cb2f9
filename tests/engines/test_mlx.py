"""The mlx engine beside the transformers engine: families, one file on both, gradients, nothing left behind."""

import importlib

import numpy as np
import pytest

pytest.importorskip("mlx_lm", reason="the mlx engine needs mlx and mlx-lm: pip install 'trimtab[mlx]'")
pytest.importorskip("transformers")

import trimtab as tt
from engines.checkpoints import save_4bit, save_tiny_llama, tokenizer
from engines.tiny import FAMILIES, _make
from trimtab import data
from trimtab.engines.mlx.dispatch import _HOOKS
from trimtab.engines.requests import CaptureSpec, ScoreRequest
from trimtab.objectives import ChoiceLogRatio, ContinuationNLL
from trimtab.prompts import Prompt
from trimtab.sites import PROJECTIONS

pytestmark = pytest.mark.engine

#: Families of mlx-lm whose tiny checkpoints the transformers tests build too.
SHARED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "mixtral",
)
#: mlx-lm has no sliding window for Mistral and Gemma 2, and takes every sixth block of Gemma 3 as the full one: here
#: the checkpoint asks for what both sides can do.
VARIANTS = {
    "mistral": _make("MistralForCausalLM", "MistralConfig", sliding_window=None),
    "gemma2": _make("Gemma2ForCausalLM", "Gemma2Config", sliding_window=64),
    "gemma3": _make("Gemma3ForCausalLM", "Gemma3TextConfig", sliding_window=8, num_hidden_layers=6),
}
TOKENS = tuple(int(t) for t in np.random.default_rng(0).integers(3, 90, 11))
#: Largest error as a share of the typical size of a state, and in nats. Gemma's first version computes the exact GELU
#: on mlx-lm and the tanh form on transformers, which are as far apart as that.
BOUND = dict.fromkeys(SHARED, 0.0001) | {"gemma": 2e-3}


@pytest.fixture(scope="module", params=SHARED)
def both(request, tmp_path_factory):
    """One random checkpoint on both engines, in float32."""
    folder = tmp_path_factory.mktemp(request.param)
    VARIANTS.get(request.param, FAMILIES[request.param])().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    engines = [tt.load_engine(folder, e, dtype="float32", device="cpu") for e in ("transformers", "mlx")]
    return *engines, BOUND[request.param]


def test_states_are_the_same_on_both_engines(both):
    theirs, ours, bound = both
    shared = sorted(set(theirs.info.widths) & set(ours.info.widths))
    streams = {s.stream for s in shared}
    assert streams >= {"resid_pre", "resid_post", "attn_out", "mlp_out", "head_out", "q", "k", "v", "o"}
    prompts = [Prompt(TOKENS), Prompt(TOKENS[:6])]
    for a, b in zip(*(e.capture(prompts, shared) for e in (theirs, ours)), strict=True):
        for site in shared:
            size = np.median(np.linalg.norm(a[site], axis=1))
            assert np.abs(a[site] - b[site]).max() <= bound * max(1.0, size), site


def test_a_steered_generation_scores_the_same_on_both_engines(both):
    theirs, ours, bound = both
    rng = np.random.default_rng(1)
    site = tt.Site(1)
    vector = tt.Direction.from_raw("v", site, rng.standard_normal(ours.info.hidden_size))
    later = tt.Direction.from_raw("w", tt.Site(2), rng.standard_normal(ours.info.hidden_size))
    plan = tt.SteeringPlan(tt.Placement(tt.Add(amount=3.0), vector, layers=[1])) | tt.SteeringPlan(
        tt.Placement(tt.Ablate(), later, layers=[2], positions="generated")
    )
    request = tt.Request(
        Prompt(TOKENS), plan, tt.Sampling(max_tokens=8, ignore_eos=True), CaptureSpec((site,))
    )
    sample = ours.generate(request)[0].samples[0]
    resolved = ours.resolve(plan, Prompt(TOKENS))
    scores = [
        e.score(ScoreRequest(Prompt(TOKENS), sample.tokens, resolved, "all"))[0] for e in (theirs, ours)
    ]
    assert np.abs(scores[0].distribution - scores[1].distribution).max() <= bound
    assert np.abs(scores[0].logprobs - sample.logprobs).max() <= bound
    plain = ours.generate(tt.Request(Prompt(TOKENS), None, request.sampling))[0]
    assert np.abs(plain.samples[0].logprobs - sample.logprobs).max() > 1e-3, "the plan did nothing"


def test_gradients_are_the_same_on_both_engines(both):
    theirs, ours, bound = both
    prompts = [Prompt(TOKENS), Prompt(TOKENS[:6])]
    vector = np.random.default_rng(2).standard_normal(ours.info.hidden_size)
    for objective in (ChoiceLogRatio((5, 6), (7,), (1.0, -1.0)), ContinuationNLL((4, 2))):
        a, b = (e.gradient(prompts, tt.Site(0), vector, objective, (1.0, -0.5)) for e in (theirs, ours))
        assert np.allclose(a[0], b[0], atol=bound)
        assert np.abs(a[1] - b[1]).max() <= 10 * bound * np.abs(a[1]).max()


def test_weights_are_the_same_on_both_engines(both):
    theirs, ours, _ = both
    shared = {s for s in set(theirs.info.widths) & set(ours.info.widths) if s.stream in PROJECTIONS}
    assert {s.stream for s in shared} >= {"q", "k", "v", "o"}
    for site in shared:
        assert np.array_equal(theirs.weight(site), ours.weight(site)), site
    with pytest.raises(tt.Unsupported, match="not the output of one projection"):
        ours.weight(tt.Site(1))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A tiny Llama whole and in 4 bits, both on mlx."""
    folder = tmp_path_factory.mktemp("quantised")
    whole = save_tiny_llama(folder / "whole")
    small = save_4bit(whole, folder / "small")
    return [tt.load_engine(p, "mlx", dtype="float32", device="cpu") for p in (whole, small)]


def test_four_bits_have_the_same_sites(quantised):
    whole, small = quantised
    assert whole.info.widths == small.info.widths


def test_quantised_weights_are_what_the_model_multiplies_by(quantised):
    whole, small = quantised
    sites = [tt.Site(1, s) for s in ("head_out", "o", "mlp_act", "down")]
    states = small.capture(small.encode("I feel fine", bare=True), sites)[0]
    for inner, outer in (sites[:2], sites[2:]):
        made = states[inner] @ small.weight(outer).T
        assert np.allclose(made, states[outer], atol=1e-5)
        assert not np.array_equal(small.weight(outer), whole.weight(outer))


def test_add_moves_a_four_bit_model_by_exactly_the_vector(quantised):
    small = quantised[1]
    vector = tt.Direction.from_raw("v", tt.Site(1), np.random.default_rng(3).standard_normal(64))
    plan = tt.SteeringPlan.add(vector, amount=2.0, layers=[1])
    prompt = small.encode("I feel fine", bare=True)
    before, after = (small.capture(prompt, [0, 1], plan=p)[0] for p in (None, plan))
    assert np.array_equal(before[0], after[0])
    assert np.allclose(after[1] - before[1], 2.0 * vector.unit, atol=1e-5)


def test_nothing_is_left_on_the_model(quantised):
    engine = quantised[0]
    kinds = [type(m) for _, m in engine.model.named_modules()]
    vector = tt.Direction.from_raw("v", tt.Site(1), np.ones(64))
    stream = engine.stream(tt.Request("I feel", tt.SteeringPlan.add(vector, amount=1.0, layers=[1])))
    next(stream)
    assert not _HOOKS and [type(m) for _, m in engine.model.named_modules()] == kinds
    stream.close()
    with pytest.raises(tt.InputError):
        engine.capture("I feel", [9])
    assert not _HOOKS and [type(m) for _, m in engine.model.named_modules()] == kinds


def test_a_vector_of_one_engine_steers_the_other(tmp_path):
    """One file, both ways: the same greedy text from the same plan."""
    engines = {
        n: tt.load_engine("embedded", n, dtype="float32", device="cpu") for n in ("transformers", "mlx")
    }
    happy = [{"role": "user", "content": "How was your day?"}]
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        '{"positive": "I am so glad and I sing.", "negative": "I am so sad and I weep."}\n'
        '{"positive": "She laughed and danced.", "negative": "She cried and hid."}\n'
    )
    for maker, user in (("transformers", "mlx"), ("mlx", "transformers")):
        file = tmp_path / f"{maker}.safetensors"
        tt.extract(engines[maker], data, layers="all").save(file)
        vectors = tt.load(file, model=engines[user].info)
        plan = tt.SteeringPlan.add(vectors, dose=0.8, layers="1-4")
        texts = {
            n: e.chat(happy, plan=plan, sampling=tt.Sampling(max_tokens=12)).text for n, e in engines.items()
        }
        assert texts["transformers"] == texts["mlx"]
        assert texts["mlx"] != engines["mlx"].chat(happy, sampling=tt.Sampling(max_tokens=12)).text


def test_a_real_model_takes_one_file_on_both_engines(shared_models, shared_data, tmp_path):
    """Extracted from published stimuli on either engine, read and steered by the other."""
    folder = shared_models / "stories260K" / "hf"
    engines = {n: tt.load_engine(folder, n, dtype="float32", device="cpu") for n in ("transformers", "mlx")}
    emotions = shared_data / "repe" / "emotions"
    made = {}
    for maker, user in (("transformers", "mlx"), ("mlx", "transformers")):
        corpus = data.load(emotions / "happiness.json", negatives=emotions / "sadness.json")
        made[maker] = tt.extract(engines[maker], corpus, layers="all")
        made[maker].save(tmp_path / f"{maker}.safetensors")
        vectors = tt.load(tmp_path / f"{maker}.safetensors", model=engines[user].info)
        plan = tt.SteeringPlan.add(vectors, dose=0.5, layers="2")
        ask = {"sampling": tt.Sampling(max_tokens=24), "readout": tt.Readout.from_vectors(vectors)}
        done = {
            n: e.generate(tt.Request("Once upon a time", plan, **ask))[0].samples[0]
            for n, e in engines.items()
        }
        assert done["transformers"].tokens == done["mlx"].tokens
        assert np.allclose(done["transformers"].logprobs, done["mlx"].logprobs, atol=1e-4)
        assert np.allclose(done["transformers"].readings.values, done["mlx"].readings.values, atol=1e-3)
        plain = engines[user].generate(tt.Request("Once upon a time", None, **ask))[0].samples[0]
        assert plain.tokens != done[user].tokens
    for site in made["mlx"].sites:
        a, b = (made[n].direction("happiness", site).unit for n in made)
        assert a @ b > 0.99999, site


@pytest.mark.parametrize("name", ["mlx", "transformers"])
def test_half_precision_proves_the_same_sites(name):
    """Rounded products must not hide which projection is which."""
    widths = {
        d: tt.load_engine("embedded", name, dtype=d, device="cpu").info.widths
        for d in ("float32", "bfloat16", "float16")
    }
    assert widths["bfloat16"] == widths["float16"] == widths["float32"]
    assert {s.stream for s in widths["float32"]} >= set(PROJECTIONS)


@pytest.fixture(scope="module")
def embedded():
    return tt.load_engine("embedded", "mlx", dtype="float32", device="cpu")


def _continuations(engine, prompt):
    """Requests that differ in everything a continuation may choose."""
    rng = np.random.default_rng(4)
    site = tt.Site(3)
    vector = tt.Direction.from_raw("v", site, rng.standard_normal(engine.info.hidden_size))
    vectors = tt.ConceptVectors.from_directions([vector])
    cold, warm = (
        tt.Sampling(max_tokens=9, ignore_eos=True),
        tt.Sampling(max_tokens=7, temperature=0.9, seed=3, n=2),
    )
    spec, readout = CaptureSpec((tt.Site(0), site), "generated"), tt.Readout.from_vectors(vectors)
    add = tt.SteeringPlan.add(vector, amount=90.0, layers=[3], positions="generated")
    return [
        tt.Request(prompt, None, cold, spec, readout),
        tt.Request(prompt, add, cold, spec, readout),
        tt.Request(prompt, add.scaled(-1.0), warm),
        tt.Request(
            prompt,
            tt.SteeringPlan.add(vector, amount=40.0, layers=[3], positions={"after": len(prompt)}),
            cold,
        ),
    ]


def test_continuing_a_prefix_is_a_whole_run(embedded, tmp_path):
    prompt = embedded.encode([{"role": "user", "content": "How was your day?"}])
    start = embedded.prefill(prompt)
    start.save(tmp_path / "prompt.safetensors")
    requests = _continuations(embedded, prompt)
    whole = embedded.generate(requests)
    moved = np.abs(whole[0].samples[0].logprobs[1:] - whole[1].samples[0].logprobs[1:]).max()
    assert moved > 0.01, "the plan did nothing"
    again = embedded.load_prefix(tmp_path / "prompt.safetensors", prompt)
    for prefix in (start, start, again):  # twice from one: a continuation leaves it as it was
        for got, want in zip(embedded.continue_from(prefix, requests), whole, strict=True):
            for a, b in zip(got.samples, want.samples, strict=True):
                assert a.tokens == b.tokens and a.applied == b.applied
                assert np.allclose(a.logprobs, b.logprobs, atol=1e-4)
                if b.capture is not None:
                    assert np.array_equal(a.capture.positions, b.capture.positions)
                    assert all(np.allclose(a.capture[s], b.capture[s], atol=1e-4) for s in b.capture.values)
                if b.readings is not None:
                    assert np.allclose(a.readings.values, b.readings.values, atol=1e-4)


def test_prompt_cache_files_go_to_mlx_lm_and_come_from_it(embedded, tmp_path, monkeypatch, capsys):
    """By mlx-lm's own programs, both ways: the text after the prompt is that of a whole run."""

    def run(program, *argv):
        monkeypatch.setattr("sys.argv", ["mlx_lm", *map(str, argv)])
        capsys.readouterr()
        importlib.import_module(f"mlx_lm.{program}").main()
        return capsys.readouterr().out

    question = "How was your day?"
    cold = tt.Sampling(max_tokens=8)
    # From mlx-lm, which renders the message without its end.
    words = embedded.tokenizer
    tokens = words.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=True,
        add_generation_prompt=False,
        continue_final_message=True,
    )
    prompt = Prompt(tuple(tokens))
    run(
        "cache_prompt",
        "--model",
        embedded.source,
        "--prompt",
        question,
        "--prompt-cache-file",
        tmp_path / "theirs.safetensors",
    )
    start = embedded.load_prefix(tmp_path / "theirs.safetensors", prompt)
    assert start.prompt == prompt
    on = tt.Sampling(max_tokens=6, ignore_eos=True)  # the message has no end yet
    (got,) = embedded.continue_from(start, tt.Request(prompt, None, on))
    (want,) = embedded.generate(tt.Request(prompt, None, on))
    assert got.tokens == want.tokens
    # mlx-lm ran the bfloat16 of the checkpoint, and this engine runs float32: what came from the file shows.
    assert 0 < np.abs(got.samples[0].logprobs - want.samples[0].logprobs).max() < 0.1
    # To mlx-lm, which appends the rest of the template after what it is given.
    first = embedded.encode([{"role": "user", "content": question}])
    embedded.prefill(first).save(tmp_path / "ours.safetensors")
    out = run(
        "generate", "--prompt-cache-file", tmp_path / "ours.safetensors", "--prompt", "I am", "--max-tokens", 8,
        "--temp", 0, "--ignore-chat-template", "--verbose", "False",
    )  # fmt: skip
    whole = Prompt(first.tokens + tuple(words.encode("I am")))
    (rest,) = embedded.generate(tt.Request(whole, None, cold))
    assert rest.text.strip() and out.strip() == rest.text.strip()


def test_a_prefix_refuses_what_reaches_back_into_the_prompt(embedded, tmp_path):
    prompt = embedded.encode([{"role": "user", "content": "How was your day?"}])
    start = embedded.prefill(prompt)
    vector = tt.Direction.from_raw("v", tt.Site(3), np.ones(embedded.info.hidden_size))
    with pytest.raises(tt.InputError, match="'generated'"):
        embedded.continue_from(start, tt.Request(prompt, tt.SteeringPlan.add(vector, amount=1.0, layers=[3])))
    with pytest.raises(tt.InputError, match="capture positions"):
        embedded.continue_from(start, tt.Request(prompt, capture=CaptureSpec((tt.Site(0),))))
    other = embedded.encode([{"role": "user", "content": "Tell me a story."}])
    with pytest.raises(tt.InputError, match="another prompt"):
        embedded.continue_from(start, tt.Request(other))
    start.save(tmp_path / "p.safetensors")
    with pytest.raises(tt.InputError, match="another one"):
        embedded.load_prefix(tmp_path / "p.safetensors", Prompt(prompt.tokens + prompt.tokens))
    with pytest.raises(tt.InputError, match="no such file"):
        embedded.load_prefix(tmp_path / "none.safetensors", prompt)


def test_hooks_of_ones_own_and_gradients_through_them(embedded):
    import mlx.core as mx

    prompt = embedded.encode([{"role": "user", "content": "How was your day?"}])
    vector = np.random.default_rng(5).standard_normal(embedded.info.hidden_size).astype(np.float32)
    seen = []
    plain = embedded.run_with_hooks(prompt, {2: lambda h: seen.append(h)})
    captured = embedded.capture(prompt, [2])[0]
    assert np.allclose(np.array(seen[0][0]), captured[2], atol=1e-5)
    moved = embedded.run_with_hooks(prompt, {2: lambda h: h + mx.array(vector)})
    direction = tt.Direction.from_raw("v", tt.Site(2), vector)
    plan = tt.SteeringPlan.add(direction, scale=1.0, layers=[2])
    scored = embedded.score(ScoreRequest(prompt, None, plan, "last"))[0]
    logits = moved[0, -1]
    assert np.allclose(np.array(logits - mx.logsumexp(logits)), scored.distribution, atol=1e-4)

    def loss(v):
        last = embedded.run_with_hooks(prompt, {2: lambda h: h + v})[0, -1]
        return last[7] - last[9]

    zero = mx.zeros(embedded.info.hidden_size)
    slope = float((mx.grad(loss)(zero) * mx.array(vector)).sum().item())
    step = 1e-2
    numeric = float((loss(mx.array(step * vector)) - loss(mx.array(-step * vector))).item()) / (2 * step)
    assert slope == pytest.approx(numeric, rel=0.02)
    assert np.allclose(np.array(loss(zero)), np.array(plain[0, -1][7] - plain[0, -1][9]), atol=1e-4)
    with pytest.raises(tt.InputError, match="layer_2"):
        embedded.run_with_hooks(prompt, {2: lambda h: h[:, :1]})


def test_a_vector_is_learned_on_mlx(embedded):
    from trimtab.recipes import typical_norms
    from trimtab.training.vector import Term, learn_vector

    yes, no = (embedded.encoder.continuation(w)[0] for w in ("Yes", "No"))
    prompts = [
        embedded.encode([{"role": "user", "content": q}]) for q in ("Is it good to lie?", "Is snow white?")
    ]
    term = Term(tuple(prompts), ChoiceLogRatio((yes,), (no,), (1.0, 1.0)), (1.0, 1.0))
    width = embedded.info.hidden_size
    typical = typical_norms(embedded, [2])[tt.Site(2)]
    learned = learn_vector(
        embedded, tt.Site(2), [term], name="yes", width=width, typical_norm=typical, steps=30
    )
    before, after = (
        embedded.gradient(prompts, tt.Site(2), v, term.objective, (1.0, 1.0))[0].sum()
        for v in (np.zeros(width), learned.direction.raw)
    )
    assert after < 0.5 * before
