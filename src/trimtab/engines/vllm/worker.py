"""Inside vLLM's worker: layers are wrapped when the model is loaded, batches are seen as they are prepared, and a few
RPC methods take arrays in. All of it hangs on one wrapped method of the worker class.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

import torch

from trimtab import __version__
from trimtab.engines.vllm import extension_points, layers, losses, op, seeds, stops
from trimtab.engines.vllm.channel import Sender
from trimtab.engines.vllm.kernel import Item, Kernel
from trimtab.engines.vllm.ticket import KEY
from trimtab.errors import Unsupported

log = logging.getLogger("vllm.trimtab")
#: The key in vLLM's `additional_config` for options of the engine, and for the salt of the compile cache.
OPTION = "trimtab"
BANK = 1024


def patch(worker_class: Any) -> None:
    """Wrap `load_model` and add the RPC methods."""
    if hasattr(worker_class, "trimtab_attach"):
        return
    original = worker_class.load_model

    @functools.wraps(original)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        options = salt(self.vllm_config)
        result = original(self, *args, **kwargs)
        try:
            self.trimtab = Station(self, options)
            self.trimtab_refusal = ""
        except Exception as error:
            # The model serves plain requests as ever; whoever wants to steer it is told when they attach.
            expected = isinstance(error, Unsupported)
            why = (
                str(error) if expected else f"the probe of the model failed: {type(error).__name__}: {error}"
            )
            self.trimtab, self.trimtab_refusal = None, why
            refuse(self.model_runner, why)
            log.warning("trimtab: this model cannot be steered: %s", why, exc_info=not expected)
        return result

    worker_class.load_model = load_model
    worker_class.trimtab_attach = _attach
    worker_class.trimtab_put = _put
    worker_class.trimtab_put_readout = _put_readout
    worker_class.trimtab_drop = _drop
    worker_class.trimtab_counts = _counts


def salt(config: Any) -> dict[str, Any]:
    """Put trimtab's version into what the compile cache is keyed by; the options found there.

    Without it, code that was compiled before trimtab was installed is loaded from the cache, and steers nothing.
    """
    extra = config.additional_config
    if not isinstance(extra, dict):
        return {}
    options = dict(extra.get(OPTION) or {})
    config.additional_config = {**extra, OPTION: {**options, "version": __version__, "op": op.NAME}}
    return options


class Station:
    """What a worker holds: the kernel of its model, and the channel to whoever waits for results."""

    def __init__(self, worker: Any, options: dict[str, Any]) -> None:
        runner, config = worker.model_runner, worker.vllm_config
        extension_points.check_config(config)
        model, text = runner.get_model(), config.model_config.hf_text_config
        extension_points.check_family(type(model).__name__)
        width = config.model_config.get_hidden_size()
        name, blocks = layers.find_layers(model, text.num_hidden_layers)
        self.split = layers.is_split(model, blocks, functools.partial(_probe, runner, config), width)
        self.sender = Sender()
        self.kernel = Kernel(
            range(len(blocks)), width, self._send, capacity=options.get("bank", BANK), device=runner.device
        )
        layers.attach(blocks, op.enlist(self.kernel), self.split)
        self.speaks = _tensor_rank() == 0
        self.info = {
            "layers": name,
            "block": type(blocks[0]).__name__,
            "architecture": type(model).__name__,
            "split": self.split,
            "version": __version__,
        }
        watch(runner, self.kernel)

    def _send(self, reports: Any, results: Any) -> None:
        if self.speaks:  # every tensor-parallel rank holds the same states
            self.sender(reports, results)


def watch(runner: Any, kernel: Kernel) -> None:
    """Tell the kernel of every batch, before and after its forward pass."""
    prepare, execute, dummy = runner._prepare_inputs, runner.execute_model, runner._dummy_run
    sample, lost = runner.sample_tokens, {}

    def prepared(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        # Only afterwards are the order of the batch and the positions final.
        result = prepare(scheduled, *args, **kwargs)
        seeds.protect(runner, scheduled)
        kernel.fill(items(runner, scheduled))
        return result

    def executed(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        kernel.begin()
        kernel.finish(scheduled.finished_req_ids)
        lost.clear()
        result = execute(scheduled, *args, **kwargs)
        lost.update(kernel.harvest())
        clean(runner, lost)
        return result

    def sampled(*args: Any, **kwargs: Any) -> Any:
        output = sample(*args, **kwargs)
        losses.tell(output, lost)
        stops.tell(output, kernel.stopped)
        return output

    def dummied(*args: Any, **kwargs: Any) -> Any:
        kernel.begin()
        return dummy(*args, **kwargs)

    runner._prepare_inputs, runner.execute_model, runner._dummy_run = prepared, executed, dummied
    runner.sample_tokens = sampled


def clean(runner: Any, lost: Iterable[str]) -> None:
    """Zero the blocks of lost requests that hold what is not finite. Attention multiplies the unused end of a block by
    weights of 0, and 0 times what is not finite is not finite: the block's next owner would be lost, too. Blocks that
    are finite may be shared with others of the same plan, and stay."""
    context = runner.compilation_config.static_forward_context
    for request in filter(None, map(runner.requests.get, lost)):
        for group, blocks in zip(runner.kv_cache_config.kv_cache_groups, request.block_ids, strict=True):
            own = torch.tensor([i for i in blocks if i], dtype=torch.long)  # block 0 is nobody's
            for name in group.layer_names:
                held = getattr(context.get(name), "kv_cache", None)
                for cache in held if isinstance(held, list | tuple) else [held]:
                    if isinstance(cache, torch.Tensor):
                        fine = torch.isfinite(cache[own]).flatten(1).all(1)
                        cache[own[~fine]] = 0


def refuse(runner: Any, why: str) -> None:
    """Nothing is steered here: a request that comes with a ticket all the same is lost, and not served plain."""
    execute, sample, lost = runner.execute_model, runner.sample_tokens, {}

    def executed(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        lost.clear()
        for new in scheduled.scheduled_new_reqs:
            if new.sampling_params is not None and KEY in (new.sampling_params.extra_args or {}):
                lost[new.req_id] = why
        return execute(scheduled, *args, **kwargs)

    def sampled(*args: Any, **kwargs: Any) -> Any:
        output = sample(*args, **kwargs)
        losses.tell(output, lost)
        return output

    runner.execute_model, runner.sample_tokens = executed, sampled


def items(runner: Any, scheduled: Any) -> list[Item]:
    """The batch, in the order of its rows."""
    batch, found, at = runner.input_batch, [], 0
    for i, id in enumerate(batch.req_ids):
        count = scheduled.num_scheduled_tokens[id]
        params = runner.requests[id].sampling_params
        extra = None if params is None else params.extra_args
        found.append(Item(id, at, at + count, int(batch.num_computed_tokens_cpu[i]), extra))
        at += count
    return found


def _probe(runner: Any, config: Any) -> None:
    """A few tokens through the model, without compiling and without keys and values.

    Attention without keys and values leaves its output as the memory happens to be, which may be anything.
    """
    from vllm.forward_context import set_forward_context

    ids = torch.arange(4, device=runner.device) % config.model_config.get_vocab_size()
    positions = torch.arange(4, device=runner.device)
    if runner.uses_mrope:
        positions = positions.expand(3, -1)
    if config.lora_config is not None:
        # No adapter for these tokens; vLLM's own table of them is not filled yet.
        runner._set_active_loras((0,), (0,) * 4, set())
    inner = config.compilation_config.static_forward_context.values()
    hooks = [m.register_forward_hook(_bounded) for m in inner if isinstance(m, torch.nn.Module)]
    try:
        with torch.inference_mode(), set_forward_context(None, config, num_tokens=4, skip_compiled=True):
            runner.get_model()(input_ids=ids, positions=positions)
    finally:
        for hook in hooks:
            hook.remove()


def _bounded(module: Any, args: Any, output: Any) -> Any:
    return torch.nan_to_num(output).clamp(-1, 1) if torch.is_tensor(output) else output


def _tensor_rank() -> int:
    from vllm.distributed.parallel_state import get_tp_group

    return get_tp_group().rank_in_group


# --- RPC methods of the worker ------------------------------------------------------------------------------------


def _station(worker: Any) -> Station:
    if worker.trimtab is None:
        raise Unsupported(worker.trimtab_refusal)
    return worker.trimtab


def _attach(self: Any, address: str) -> dict[str, Any]:
    """Send results to `address`; what was found at load, or {"refused": why}."""
    if self.trimtab is None:
        return {"refused": self.trimtab_refusal}
    if self.trimtab.speaks:
        self.trimtab.sender.attach(address)
    return self.trimtab.info


def _put(self: Any, blob: bytes) -> None:
    """Hold arrays (safetensors, by content hash)."""
    from safetensors.numpy import load

    for name, array in load(bytes(blob)).items():
        _station(self).kernel.put(name, array)


def _put_readout(self: Any, name: str, blob: bytes) -> None:
    """Hold the rows of a readout (safetensors, by layer)."""
    from safetensors.numpy import load

    _station(self).kernel.put_readout(name, {int(k): v for k, v in load(bytes(blob)).items()})


def _drop(self: Any, names: list[str]) -> None:
    _station(self).kernel.drop(names)


def _counts(self: Any) -> dict[str, int]:
    return _station(self).kernel.counts()
