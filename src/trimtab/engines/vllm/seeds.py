"""Seeds on a CPU. vLLM samples also after a chunk that does not end a prompt, throws the token away and takes the
generator back by an offset. Generators of a CPU have none: the engine dies (0.32). Ours remember the state instead.
"""

from __future__ import annotations

from typing import Any

import torch


class Rewinding(torch.Generator):
    """A generator whose last draw can be taken back through the two methods that vLLM uses for it."""

    @classmethod
    def like(cls, generator: torch.Generator) -> Rewinding:
        """One in the same state."""
        new = cls()
        new.set_state(generator.get_state())
        new.mark()
        return new

    def mark(self) -> None:
        """Remember the state from before the next draw."""
        self._before = self.get_state()

    def get_offset(self) -> int:
        """Of no meaning by itself; what counts is that it is given back smaller."""
        return 4

    def set_offset(self, offset: int) -> None:
        """Take the last draw back."""
        self.set_state(self._before)


def protect(runner: Any, scheduled: Any) -> None:
    """Make the generators of a batch able to take back what they are about to draw in vain."""
    batch = runner.input_batch
    for index, generator in list(batch.generators.items()):
        if generator.device.type != "cpu":
            continue
        id = batch.req_ids[index]
        request = runner.requests[id]
        if not isinstance(generator, Rewinding):
            generator = batch.generators[index] = request.generator = Rewinding.like(generator)
        reached = batch.num_computed_tokens_cpu[index] + scheduled.num_scheduled_tokens[id]
        if reached < request.num_tokens:
            generator.mark()
