"""Reading and adding directions with plain PyTorch hooks: the card's numbers do not depend on trimtab's engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LAYERS = (1, 2, 3, 4)
Messages = list[dict[str, str]]


class Speaker:
    """A model with its tokenizer, its typical norms, and directions that are being added."""

    def __init__(self, model, tokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.added: dict[int, torch.Tensor] = {}
        self.read: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(model.model.layers):
            layer.register_forward_hook(self.hook(index))
        self.norms: dict[int, float] = {}

    def hook(self, index: int):
        """Add first, then keep what the layer puts out."""

        def run(module, inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            if index in self.added:
                hidden = hidden + self.added[index]
            self.read[index] = hidden
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return run

    @contextmanager
    def adding(self, vectors: dict[int, torch.Tensor]) -> Iterator[None]:
        """Add ``vectors`` at every position inside the block."""
        self.added = vectors
        try:
            yield
        finally:
            self.added = {}

    def text(self, messages: Messages, prompt: bool = True) -> str:
        """The chat template's text."""
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)

    def batch(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Left-padded token ids with their mask."""
        return dict(
            self.tokenizer(
                texts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False
            )
        )

    @torch.no_grad()
    def generate(self, texts: list[str], seed: int, tokens: int = 36) -> list[str]:
        """One sampled continuation of each text."""
        torch.manual_seed(seed)
        batch = self.batch(texts)
        out = self.model.generate(
            **batch, max_new_tokens=tokens, do_sample=True, temperature=0.8, top_p=0.95, top_k=0
        )
        return self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    def yes_minus_no(self, questions: list[Messages]) -> torch.Tensor:
        """log P(Yes) - log P(No) as the first token of the answer."""
        yes, no = (self.tokenizer.encode(word)[0] for word in ("Yes", "No"))
        logits = self.model(**self.batch([self.text(q) for q in questions]), use_cache=False).logits[:, -1]
        return logits[:, yes] - logits[:, no]

    @torch.no_grad()
    def means(self, conversations: list[Messages], role: str) -> dict[int, torch.Tensor]:
        """Mean hidden state over the last message's content, one row for each conversation and layer."""
        rows: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(len(self.model.model.layers))}
        for messages in conversations:
            assert messages[-1]["role"] == role
            before = self.text(messages[:-1], prompt=False) + f"<|im_start|>{role}\n"
            start = len(self.tokenizer.encode(before))
            stop = len(self.tokenizer.encode(before + messages[-1]["content"]))
            self.model(**self.batch([self.text(messages, prompt=False)]), use_cache=False)
            for layer, values in rows.items():
                values.append(self.read[layer][0, start:stop].mean(0))
        return {layer: torch.stack(values) for layer, values in rows.items()}


def difference(speaker: Speaker, pairs: list[dict], role: str) -> dict[int, torch.Tensor]:
    """Mean difference of positive and negative conversations at every layer; sets the typical norms."""
    positive = speaker.means([p["positive"]["messages"] for p in pairs], role)
    negative = speaker.means([p["negative"]["messages"] for p in pairs], role)
    speaker.norms = {layer: rows.norm(dim=-1).mean().item() for layer, rows in negative.items()}
    return {layer: (positive[layer] - negative[layer]).mean(0) for layer in positive}


def dosed(speaker: Speaker, directions: dict[int, torch.Tensor], dose: float) -> dict[int, torch.Tensor]:
    """Total dose ``dose``, spread evenly over ``LAYERS``, in units of each layer's typical norm."""
    share = dose / len(LAYERS)
    return {
        layer: directions[layer] / directions[layer].norm() * share * speaker.norms[layer] for layer in LAYERS
    }


def random_directions(width: int, seed: int) -> dict[int, torch.Tensor]:
    """One random direction, the same at every layer."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(width, generator=generator)
    return dict.fromkeys(LAYERS, direction)


def train_vector(
    speaker: Speaker,
    questions: list[Messages],
    signs: torch.Tensor,
    layer: int,
    steps: int = 40,
    cap: float = 0.7,
) -> torch.Tensor:
    """A vector that makes the speaker lie when subtracted; ``signs`` are +1 where Yes is honest."""
    for parameter in speaker.model.parameters():
        parameter.requires_grad_(False)
    norm = speaker.norms[layer]
    generator = torch.Generator().manual_seed(0)
    vector = (
        torch.randn(speaker.model.config.hidden_size, generator=generator) * 0.01 * norm
    ).requires_grad_(True)
    optimiser = torch.optim.Adam([vector], lr=0.05 * norm)
    for _ in range(steps):
        chosen = torch.randperm(len(questions), generator=generator)[:32].tolist()
        with speaker.adding({layer: -vector}):
            ratio = speaker.yes_minus_no([questions[i] for i in chosen])
        loss = torch.nn.functional.softplus(signs[chosen] * ratio).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            vector.mul_(min(1.0, cap * norm / vector.norm().item()))
    return vector.detach()
