"""Inside vLLM's worker: layers are wrapped when the model is loaded, batches are seen as they are prepared, and a few
RPC methods take arrays in. All of it hangs on one wrapped method of the worker class.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

from trimtab import __version__
from trimtab.engines.vllm import extension_points, layers, op, pipeline, runners
from trimtab.engines.vllm.channel import Sender
from trimtab.engines.vllm.kernel import Kernel
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
            runners.refuse(self.model_runner, why)
            log.warning("trimtab: this model cannot be steered: %s", why, exc_info=not expected)
        return result

    worker_class.load_model = load_model
    worker_class.trimtab_attach = _attach
    worker_class.trimtab_detach = _detach
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
        extension_points.check_layers(config)
        width = config.model_config.get_hidden_size()
        name, own = layers.find_layers(model, text.num_hidden_layers)
        self.place = pipeline.Place.here()
        run = functools.partial(_probe, runner, config, self.place)
        self.split = pipeline.agree(
            self.place, lambda: layers.is_split(model, list(own.values()), run, width)
        )
        self.sender = Sender(self.place.rank, self.place.ranks)
        self.kernel = Kernel(
            own, width, self._send, capacity=options.get("bank", BANK), depth=text.num_hidden_layers,
            device=runner.device,
        )  # fmt: skip
        layers.attach(own, op.enlist(self.kernel), self.split)
        self.info = {
            "layers": name,
            "block": type(own[min(own)]).__name__,
            "architecture": type(model).__name__,
            "split": self.split,
            "version": __version__,
        }
        runners.Watch(runner, self.kernel, self.place)

    def _send(self, reports: Any, results: Any) -> None:
        # Workers that share layers hold the same states; each of them says that it steered them.
        self.sender(reports, results if self.place.tensor == 0 else [])


def _probe(runner: Any, config: Any, place: pipeline.Place) -> None:
    """A few tokens through the model, without compiling and without keys and values.

    Attention without keys and values leaves its output as the memory happens to be, which may be anything.
    """
    from vllm.forward_context import set_forward_context

    ids = torch.arange(4, device=runner.device) % config.model_config.get_vocab_size()
    positions = torch.arange(4, device=runner.device)
    if config.model_config.uses_mrope:
        positions = positions.expand(3, -1)
    if config.lora_config is not None:
        # No adapter for these tokens; vLLM's own table of them is not filled yet.
        runner._set_active_loras((0,), (0,) * 4, set())
    given = {}
    if not place.first:
        given["intermediate_tensors"] = pipeline.empty_states(runner, len(ids))
        for states in given["intermediate_tensors"].tensors.values():
            states.copy_(torch.linspace(-1, 1, states.numel()).sin().view(states.shape))
    inner = config.compilation_config.static_forward_context.values()
    hooks = [m.register_forward_hook(_bounded) for m in inner if isinstance(m, torch.nn.Module)]
    try:
        with torch.inference_mode(), set_forward_context(None, config, num_tokens=4, skip_compiled=True):
            runner.get_model()(input_ids=ids, positions=positions, **given)
    finally:
        for hook in hooks:
            hook.remove()


def _bounded(module: Any, args: Any, output: Any) -> Any:
    return torch.nan_to_num(output).clamp(-1, 1) if torch.is_tensor(output) else output


# --- RPC methods of the worker ------------------------------------------------------------------------------------


def _station(worker: Any) -> Station:
    if worker.trimtab is None:
        raise Unsupported(worker.trimtab_refusal)
    return worker.trimtab


def _attach(self: Any, address: str) -> dict[str, Any]:
    """Send results to `address`; what was found at load, or {"refused": why}."""
    if self.trimtab is None:
        return {"refused": self.trimtab_refusal}
    self.trimtab.sender.attach(address)
    return self.trimtab.info


def _detach(self: Any) -> None:
    """Nobody listens any more: results are dropped. Otherwise the worker would wait for a reader that is gone."""
    if self.trimtab is not None:
        self.trimtab.sender.close()


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
