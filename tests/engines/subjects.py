"""Who is held to the contract. A new engine adds one builder to `SUBJECTS` and one row to `TOLERANCES`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import trimtab
from engines.oracles import HookOracle, LoopOracle, Oracle, Trace
from trimtab.directions import Direction
from trimtab.engines.base import Engine
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site


@dataclass(frozen=True)
class Tolerance:
    """`state`: largest error of a state, as a share of the typical norm at its site. `logprob`: largest absolute error,
    in nats, against the oracle and between a batch and a single run."""

    state: float
    logprob: float


#: The one table. float64 numpy is exact to the float32 that captures are returned in; float32 torch sums in any order.
TOLERANCES: dict[str, Tolerance] = {
    "reference": Tolerance(state=3e-7, logprob=1e-6),
    "reference-chunked": Tolerance(state=3e-7, logprob=1e-6),
    "reference-remote": Tolerance(state=3e-7, logprob=1e-6),
    "reference-servers": Tolerance(state=3e-7, logprob=1e-6),
    "transformers-llama": Tolerance(state=1e-5, logprob=1e-4),
    "transformers-embedded": Tolerance(state=1e-5, logprob=1e-4),
    "mlx-llama": Tolerance(state=1e-5, logprob=1e-4),
    "mlx-embedded": Tolerance(state=1e-5, logprob=1e-4),
    "mlx-4bit": Tolerance(state=1e-4, logprob=1e-3),
    "vllm-eager": Tolerance(state=1e-5, logprob=1e-4),
    "vllm-compiled": Tolerance(state=1e-5, logprob=1e-4),
    "remote-embedded": Tolerance(state=1e-5, logprob=1e-4),
    "remote-vllm": Tolerance(state=1e-5, logprob=1e-4),
}

TEXTS = ("I feel so happy today. We stay", "They look mad!", "you seem very early now. I")
MESSAGES = (
    {"role": "system", "content": "Be quiet"},
    {"role": "user", "content": "How do you feel?"},
    {"role": "assistant", "content": "I feel glad"},
    {"role": "user", "content": "And now"},
)


@dataclass
class Subject:
    """One engine under test, its oracle, and what the clauses need to know of it."""

    name: str
    engine: Engine
    oracle: Oracle
    chunked: Callable[[int], Engine] | None = None  # the same model with prompts split into chunks
    forwards: Callable[[], int] | None = None  # how many forward passes have been run
    texts: tuple[str, ...] = TEXTS
    hottest: float = 5.0  # a temperature at which nearly everything is likely, and that the engine takes
    tolerance: Tolerance = field(init=False)

    def __post_init__(self) -> None:
        self.tolerance = TOLERANCES[self.name]
        self.prompts: list[Prompt] = [
            self.engine._encode_text(t) for t in self.texts
        ]  # no warning: bare on purpose
        self.plain = functools.cache(lambda i: self.oracle.run(self.prompts[i].tokens, ResolvedPlan()))

    @property
    def layers(self) -> tuple[int, ...]:
        """First, middle and last block."""
        last = self.engine.info.n_layers - 1
        return tuple(sorted({0, last // 2, last}))

    @property
    def last(self) -> int:
        """Index of the last block."""
        return self.engine.info.n_layers - 1

    def size(self, site: Site) -> float:
        """Median norm of plain states at a site."""
        return float(np.median(np.linalg.norm(self.plain(0).before[site], axis=1)))

    def direction(self, site: Site, which: int = 0) -> Direction:
        """A reproducible direction off every axis, with typical norm, mean and std of the plain states."""
        width = self.engine.info.width(site)
        raw = np.random.default_rng([which, width]).standard_normal(width)
        unit = raw / np.linalg.norm(raw)
        p = self.plain(0).before[site] @ unit
        return Direction.from_raw(
            f"d{which}",
            site,
            raw,
            typical_norm=self.size(site),
            mean=float(p.mean()),
            std=float(p.std()) + 1e-3,
        )

    def trace(self, tokens: Any, plan: Any) -> Trace:
        """The oracle under a plan, resolved against the prompt where it is not."""
        if isinstance(tokens, Prompt):
            return self.oracle.run(tokens.tokens, self.engine.resolve(plan, tokens))
        return self.oracle.run(tokens, plan)

    def same_states(self, got: np.ndarray, want: np.ndarray, site: Site, what: str = "") -> None:
        """Assert two tables of states agree within tolerance."""
        assert got.shape == want.shape, f"{what} {site}: {got.shape} is not {want.shape}"
        error = float(np.abs(got - want).max()) / max(1.0, self.size(site))
        assert error <= self.tolerance.state, f"{what} {site}: off by {error:.2g} of the typical norm"

    def same_logprobs(self, got: np.ndarray, want: np.ndarray, what: str = "") -> None:
        """Assert log-probabilities agree within tolerance."""
        assert got.shape == want.shape, f"{what}: {got.shape} is not {want.shape}"
        error = float(np.abs(got - want).max())
        assert error <= self.tolerance.logprob, f"{what}: off by {error:.2g} nats"


def reference(chunk: int | None = None) -> Subject:
    """The numpy model."""
    from trimtab.engines.reference import ReferenceEngine

    engine = ReferenceEngine.load(chunk=chunk)
    return Subject(
        "reference" if chunk is None else "reference-chunked",
        engine,
        LoopOracle(engine.weights),
        chunked=lambda n: ReferenceEngine.load(chunk=n),
        forwards=lambda: engine.forwards,
    )


def of_torch(name: str, path: str, oracle_model: Any, **options: Any) -> Subject:
    """The transformers engine on a checkpoint, and the same checkpoint loaded a second time for the oracle."""
    engine: Any = trimtab.load_engine(path, "transformers", dtype="float32", device="cpu", **options)
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    engine.model.register_forward_pre_hook(count)
    # A capture may run the inner model alone, so both are counted.
    getattr(engine.model, "model", engine.model).register_forward_pre_hook(count)
    return Subject(name, engine, HookOracle(oracle_model), forwards=lambda: calls[0])


def transformers_llama(folder: Path) -> Subject:
    """A tiny Llama with large random weights, so that every part of it matters."""
    from transformers import AutoModelForCausalLM

    from engines.checkpoints import save_tiny_llama

    path = save_tiny_llama(folder / "llama")
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    return of_torch("transformers-llama", str(path), model)


def transformers_embedded(folder: Path) -> Subject:
    """The model that comes with the package."""
    import pytest
    from transformers import AutoModelForCausalLM

    path = Path(trimtab.__file__).parent / "embedded" / "model"
    if not (path / "config.json").exists():
        pytest.skip("the embedded model is not built yet: src/trimtab/embedded/model")
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32", attn_implementation="eager").eval()
    return of_torch("transformers-embedded", str(path), model)


def of_mlx(name: str, path: str, oracle_model: Any) -> Subject:
    """The mlx engine on a checkpoint, and the same checkpoint in torch for the oracle."""
    import pytest

    pytest.importorskip("mlx_lm", reason="the mlx engine needs mlx and mlx-lm: pip install 'trimtab[mlx]'")
    engine: Any = trimtab.load_engine(path, "mlx", dtype="float32", device="cpu")
    calls = [0]

    def counting(cls: type) -> type:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return cls.__call__(self, *args, **kwargs)

        return type(cls.__name__, (cls,), {"__call__": call})

    object.__setattr__(engine.model, "__class__", counting(type(engine.model)))
    return Subject(name, engine, HookOracle(oracle_model), forwards=lambda: calls[0])


def mlx_llama(folder: Path) -> Subject:
    """The tiny Llama of the transformers engine."""
    from transformers import AutoModelForCausalLM

    from engines.checkpoints import save_tiny_llama

    path = save_tiny_llama(folder / "llama-mlx")
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    return of_mlx("mlx-llama", str(path), model)


def mlx_embedded(folder: Path) -> Subject:
    """The model that comes with the package."""
    from transformers import AutoModelForCausalLM

    path = Path(trimtab.__file__).parent / "embedded" / "model"
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32", attn_implementation="eager").eval()
    return of_mlx("mlx-embedded", str(path), model)


def mlx_4bit(folder: Path) -> Subject:
    """The tiny Llama in 4 bits; its oracle is the same Llama in torch with the weights that the 4 bits stand for."""
    import pytest
    from transformers import AutoModelForCausalLM

    from engines.checkpoints import dequantised, save_4bit, save_tiny_llama

    pytest.importorskip("mlx_lm", reason="the mlx engine needs mlx and mlx-lm: pip install 'trimtab[mlx]'")
    path = save_tiny_llama(folder / "llama-whole")
    small = save_4bit(path, folder / "llama-4bit")
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    return of_mlx("mlx-4bit", str(small), dequantised(model, small))


def vllm(folder: Path, name: str, **options: Any) -> Subject:
    """vLLM on the CPU with the tiny Llama; prompts are read in chunks when a batch has more tokens than 64."""
    import os

    import pytest

    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    from transformers import AutoModelForCausalLM

    from engines.checkpoints import save_tiny_llama

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    path = save_tiny_llama(folder / "llama")
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    engine = trimtab.load_engine(
        path, "vllm", block_size=32, max_num_seqs=32, max_num_batched_tokens=64, **options
    )
    return Subject(name, engine, HookOracle(model), hottest=2.0)


def remote(name: str, behind: Subject, servers: int = 1) -> Subject:
    """Another subject's engine, served on loopback, by one server or as by several."""
    import pytest

    for module in ("fastapi", "httpx", "uvicorn"):
        pytest.importorskip(module, reason="the remote engine needs a server: pip install 'trimtab[serve]'")
    from engines.served import Served

    served = [Served(behind.engine) for _ in range(servers)]
    engine: Any = trimtab.load_engine([s.url for s in served], "remote")
    hang_up = engine.close
    engine.close = lambda: (hang_up(), *(s.close() for s in served), behind.engine.close())
    return Subject(name, engine, behind.oracle, forwards=behind.forwards, hottest=behind.hottest)


def remote_vllm(folder: Path) -> Subject:
    """The tiny Llama on vLLM's own server with our routes in it; prompts are read in chunks, as above."""
    import pytest

    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    from transformers import AutoModelForCausalLM

    from engines.checkpoints import save_tiny_llama
    from server.stock import Server

    path = save_tiny_llama(folder / "llama-served")
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    flags = [
        "--enforce-eager", "--dtype", "float32", "--block-size", "32", "--max-num-seqs", "32",
        "--max-num-batched-tokens", "64",
    ]  # fmt: skip
    server = Server(folder / "served", {"TRIMTAB_ALLOW_INLINE": "1"}, flags, model=str(path))
    try:
        server.wait()
        engine: Any = trimtab.load_engine(server.url, "remote")
    except BaseException:
        server.close()
        raise
    hang_up = engine.close
    engine.close = lambda: (hang_up(), server.close())
    return Subject("remote-vllm", engine, HookOracle(model), hottest=2.0)


#: name -> builder(folder); names that begin with "reference" need no heavy library.
SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "reference": lambda folder: reference(),
    "reference-chunked": lambda folder: reference(chunk=3),
    "reference-remote": lambda folder: remote("reference-remote", reference()),
    "reference-servers": lambda folder: remote("reference-servers", reference(), servers=2),
    "transformers-llama": transformers_llama,
    "transformers-embedded": transformers_embedded,
    "mlx-llama": mlx_llama,
    "mlx-embedded": mlx_embedded,
    "mlx-4bit": mlx_4bit,
    "vllm-eager": lambda folder: vllm(folder, "vllm-eager", enforce_eager=True),
    "vllm-compiled": lambda folder: vllm(folder, "vllm-compiled", enforce_eager=False),
    "remote-embedded": lambda folder: remote("remote-embedded", transformers_embedded(folder)),
    "remote-vllm": remote_vllm,
}
