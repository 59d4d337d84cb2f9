"""Log-probabilities are taken out of what vLLM's front end makes of its workers' tensors: without an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

import torch

from trimtab.engines.vllm import scoring
from trimtab.errors import TrimtabError
from trimtab.prompts import Prompt

pytestmark = pytest.mark.engine
VOCABULARY, TOKENS = 50, (7, 3, 3, 49, 0)


def outputs(mode: str) -> tuple[Any, np.ndarray]:
    """(what vLLM says of five tokens that come in two chunks, the distributions [5, V] behind it)."""
    from vllm import SamplingParams
    from vllm.v1.engine.logprobs import LogprobsProcessor
    from vllm.v1.outputs import LogprobsLists, LogprobsTensors

    params = SamplingParams(**scoring._params(mode), detokenize=False)
    made = LogprobsProcessor.from_new_request(None, SimpleNamespace(sampling_params=params))  # type: ignore[arg-type]
    truth = torch.randn(5, VOCABULARY, generator=torch.Generator().manual_seed(1)).log_softmax(-1)

    def listed(rows: torch.Tensor, tokens: Any, every: bool) -> tuple[torch.Tensor, ...]:
        ids = torch.tensor(tokens)[:, None]
        if every:  # the token itself, then all by their rank
            ids = torch.cat([ids, rows.argsort(descending=True)], dim=1)
        return ids.int(), rows.gather(1, ids), torch.ones(len(ids), dtype=torch.int)

    for chunk in (slice(0, 2), slice(2, 4)):
        made._update_prompt_logprobs(LogprobsTensors(*listed(truth[chunk], TOKENS[1:][chunk], mode == "all")))
    if mode != "none":
        last = [x.numpy() for x in listed(truth[4:], [int(truth[4].argmax())], True)]
        made._update_sample_logprobs(LogprobsLists(last[0], last[1], last[2]))
    sample = SimpleNamespace(logprobs=made.logprobs)
    return SimpleNamespace(prompt_logprobs=made.prompt_logprobs, outputs=[sample]), truth.numpy()


@pytest.mark.parametrize("mode", ["none", "last", "all"])
@pytest.mark.parametrize("first", [1, 3, 5])
def test_scores_are_what_the_workers_computed(mode, first):
    output, truth = outputs(mode)
    found = scoring._score(Prompt(TOKENS), first, mode, output)
    assert found.tokens == TOKENS[first:]
    want = [truth[i - 1, TOKENS[i]] for i in range(first, 5)]
    assert np.array_equal(found.logprobs, np.array(want, np.float32))
    if mode == "none":
        assert found.distribution is None
    else:
        assert found.distribution is not None
        assert np.array_equal(found.distribution, truth if mode == "all" else truth[4])


def test_scores_of_other_tokens_are_refused():
    output, _ = outputs("none")
    with pytest.raises(TrimtabError, match="other tokens"):
        scoring._score(Prompt((*TOKENS[:4], 1)), 1, "none", output)
