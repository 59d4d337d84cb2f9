"""Train the embedded model: fixed seed, fixed steps, one pass over generated text.

``python -m embedded.train --seed 0 --steps 2400 --work /tmp/embedded-0`` writes a Transformers model folder to
``<work>/model``.  Layer matrices are trained by Muon, everything else by AdamW.  Every second step adds constant
random directions to the residual stream, as a steering vector would, so that the model stays fluent when steered.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen3Config, Qwen3ForCausalLM

from embedded.corpus import END, tokens
from embedded.network import Network
from embedded.tokenizer import VOCABULARY, load_or_build

BATCH, LENGTH = 16, 256
WARM_UP, DECAY_FROM, FLOOR = 40, 0.5, 0.02
KEEP_EVERY = 100
CONCEPT_RATE, BALANCE_RATE = 0.7, 0.5
OTHERS_WEIGHT, YES_NO_WEIGHT = 0.2, 6.0
MUON_RATE, ADAM_RATE = 0.02, 4e-3
VALID_TOKENS = 96 * LENGTH


def config() -> Qwen3Config:
    """Qwen3, small enough for two processor cores."""
    return Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        attention_bias=False,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


def orthogonal(gradient: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration of Muon, on a stack of matrices of one shape."""
    wide = gradient.size(1) <= gradient.size(2)
    x = gradient if wide else gradient.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.mT


class Muon:
    """Momentum with orthogonalised updates, batched over matrices of equal shape.

    A matrix may hold several of Transformers' matrices (query, key, value): each part is updated on its own.
    """

    def __init__(
        self, matrices: list[tuple[torch.nn.Parameter, list[int] | None]], momentum: float = 0.95
    ) -> None:
        self.parameters = [parameter for parameter, _ in matrices]
        self.groups: dict[tuple[int, ...], list[tuple[torch.nn.Parameter, slice]]] = {}
        for parameter, rows in matrices:
            start = 0
            for count in rows or [parameter.shape[0]]:
                part = (parameter, slice(start, start + count))
                self.groups.setdefault((count, parameter.shape[1]), []).append(part)
                start += count
        self.buffers = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}
        self.momentum = momentum

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.01) -> None:
        """One update; gradients are dropped."""
        for shape, group in self.groups.items():
            gradient = torch.stack([parameter.grad[rows] for parameter, rows in group])
            buffer = self.buffers[shape].lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp(buffer, self.momentum)) * max(1.0, shape[0] / shape[1]) ** 0.5
            for (parameter, rows), change in zip(group, update, strict=True):
                parameter[rows].mul_(1 - rate * decay).add_(change, alpha=-rate)
        for parameter in self.parameters:
            parameter.grad = None


def steering_noise(rows: int, config: Qwen3Config, largest: float) -> dict[int, torch.Tensor]:
    """A constant random direction for each sequence, at one layer or, weaker, at layers 1 to 4."""
    direction = torch.randn(rows, 1, config.hidden_size)
    direction = direction / direction.norm(dim=-1, keepdim=True) * torch.rand(rows, 1, 1) * largest
    if torch.rand(()) < 0.5:
        return {int(torch.randint(0, config.num_hidden_layers, ())): direction}
    return dict.fromkeys(range(1, 5), direction * 0.6)


def schedule(step: int, steps: int) -> float:
    """Warm-up, plateau, linear decay."""
    left = 1 - step / steps
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, max(FLOOR, left / (1 - DECAY_FROM)))


def token_weights(flat: torch.Tensor, tokenizer) -> torch.Tensor:
    """Weights of the second stage: answers and stories count fully, questions little, a first Yes or No most."""
    start, end = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|endoftext|>"))
    role, line, yes, no = (tokenizer.encode(t)[0] for t in ("assistant", "\n", "Yes", "No"))
    marks = ((flat == start) | (flat == end)).nonzero().flatten()
    following = flat[(marks + 1).clamp(max=len(flat) - 1)]
    values = torch.where((flat[marks] == end) | (following == role), 1.0, OTHERS_WEIGHT)
    weights = torch.ones(len(flat))
    last = torch.searchsorted(marks, torch.arange(len(flat)), right=True) - 1
    weights[last >= 0] = values[last[last >= 0]]
    answer = (flat == yes) | (flat == no)
    answer[2:] &= (flat[1:-1] == line) & (flat[:-2] == role)
    weights[answer] = YES_NO_WEIGHT
    return weights


@torch.no_grad()
def valid_loss(network: Network, rows: torch.Tensor) -> float:
    """Mean loss per token."""
    losses = [loss_of(network(chunk), chunk).item() for chunk in rows.split(BATCH)]
    return sum(losses) / len(losses)


def loss_of(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Next-token loss, weighted where there are weights."""
    if weights is None:
        return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    each = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    chosen = weights[:, 1:].flatten()
    return (each * chosen).sum() / chosen.sum()


def rows_of(folder: Path, part: str, count: int, offset: int = 0) -> torch.Tensor:
    """Token rows of equal length."""
    flat = torch.from_numpy(tokens(folder, part, count, offset).astype("int64"))
    return flat[: count // LENGTH * LENGTH].view(-1, LENGTH)


def train(
    work: Path, seed: int, stage_steps: tuple[int, ...], noise_size: float, resume: bool = False
) -> dict:
    """Train, save the model in bf16 and return what was measured."""
    torch.manual_seed(seed)
    steps, concepts, balance, default = stage_steps
    tokenizer = load_or_build(work)
    data = rows_of(work, "train", max(steps, 1600) * BATCH * LENGTH)
    valid = rows_of(work, "valid", VALID_TOKENS)
    focused = rows_of(work, "concepts", concepts * BATCH * LENGTH) if concepts else data[:0]
    late = rows_of(work, "balance", balance * BATCH * LENGTH) if balance else data[:0]
    last = rows_of(work, "default", default * BATCH * LENGTH) if default else data[:0]
    stages = [data[: steps * BATCH], focused, late, last]
    data = torch.cat(stages)
    weights = token_weights(data.flatten(), tokenizer).view(data.shape)
    total = steps + concepts + balance + default
    network = Network(config(), LENGTH)
    muon = Muon(network.matrices())
    chosen = {id(parameter) for parameter in muon.parameters}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p.ndim == 2], "weight_decay": 0.01},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=ADAM_RATE, betas=(0.9, 0.95), fused=True,
    )  # fmt: skip
    smooth, curve, first = math.nan, [], 0
    kept = work / "checkpoint.pt"
    if resume:
        state = torch.load(kept)
        network.load_state_dict(state["network"])
        muon.buffers = state["muon"]
        adam.load_state_dict(state["adam"])
        first, smooth, curve = state["step"], state["smooth"], state["curve"]
    start = time.time()
    for step in range(first, total):
        torch.manual_seed(seed * 1_000_003 + step)
        chosen = slice(step * BATCH, (step + 1) * BATCH)
        batch, weight = data[chosen], None if step < steps else weights[chosen]
        noisy = noise_size and step % 2 and not steps <= step <= steps + concepts // 2
        noise = steering_noise(BATCH, network.config, noise_size) if noisy else None
        loss = loss_of(network(batch, noise), batch, weight)
        loss.backward()
        if step < steps:
            rate = schedule(step, steps)
        elif step < steps + concepts:
            rate = CONCEPT_RATE * schedule(step - steps, concepts)
        elif step < total - default:
            rate = BALANCE_RATE * schedule(step - steps - concepts, balance)
        else:
            rate = BALANCE_RATE * schedule(step - (total - default), default)
        muon.step(MUON_RATE * rate)
        for group in adam.param_groups:
            group["lr"] = ADAM_RATE * rate
        adam.step()
        adam.zero_grad(set_to_none=True)
        smooth = loss.item() if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss.item()
        if step % 50 == 0 or step == total - 1:
            speed = (step + 1 - first) * BATCH * LENGTH / (time.time() - start)
            print(
                f"step {step} seconds {time.time() - start:.0f} loss {smooth:.3f} tokens/s {speed:.0f}",
                flush=True,
            )
        if step % 400 == 399 or step == total - 1:
            curve.append([step + 1, round(valid_loss(network, valid), 4)])
            print("valid", curve[-1], flush=True)
        if step % KEEP_EVERY == KEEP_EVERY - 1:
            state = {"network": network.state_dict(), "muon": muon.buffers, "adam": adam.state_dict()}
            torch.save(state | {"step": step + 1, "smooth": smooth, "curve": curve}, kept)
    facts = {
        "seed": seed,
        "stage_steps": stage_steps,
        "tokens": total * BATCH * LENGTH,
        "documents": [int((rows == END).sum()) for rows in stages],
        "parameters": sum(p.numel() for p in network.parameters()),
        "noise": noise_size,
        "valid_loss": curve[-1][1],
        "curve": curve,
        "seconds": round(time.time() - start),
    }
    model = network.to_transformers()
    with torch.no_grad():
        assert torch.allclose(model(input_ids=valid[:2]).logits, network(valid[:2]), atol=1e-3)
    save(model, tokenizer, work / "model")
    (work / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def save(model: Qwen3ForCausalLM, tokenizer, folder: Path) -> None:
    """A Transformers folder in bf16, with defaults for sampling and no trace of where it was made."""
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}
    write(folder / "generation_config.json", sampling | {"eos_token_id": [2, 0], "pad_token_id": 0})
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for key in ("is_local", "local_files_only", "backend"):
        settings.pop(key, None)
    write(folder / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
    for path in folder.iterdir():
        path.chmod(0o644)


def write(path: Path, content: dict) -> None:
    """JSON, sorted."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument(
        "--noise", type=float, default=0.3, help="largest steering noise, as a share of the residual norm"
    )
    parser.add_argument("--concepts", type=int, default=550, help="steps of the second stage")
    parser.add_argument("--balance", type=int, default=240, help="steps of the third stage")
    parser.add_argument("--default", type=int, default=160, help="steps of the fourth stage")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="folder for tokens and the trained model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = (arguments.steps, arguments.concepts, arguments.balance, arguments.default)
    facts = train(arguments.work, arguments.seed, steps, arguments.noise, arguments.resume)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
