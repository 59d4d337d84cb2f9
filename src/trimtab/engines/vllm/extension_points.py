"""What the engine hangs on in vLLM, looked at before it is used; a vLLM or a setting that does not fit is refused."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
from typing import Any

from packaging.specifiers import SpecifierSet

from trimtab.errors import InputError, Unsupported

log = logging.getLogger("vllm.trimtab")

#: The versions of vLLM on which the engine is tested; another one runs where it has every extension point.
TESTED = ">=0.32,<0.33"

#: The variable that names, by commas, modes to run although no real engine has been steered in them yet: "v2", for what
#: is refused of the V2 model runner.
UNPROVEN = "TRIMTAB_UNPROVEN"

#: Families that are refused by name, by the beginning of the architecture's, and why.
REFUSED = {
    "Gemma3n": "its layers keep four versions of every state side by side, and no single residual stream",
}

#: (module, name, parameters that must be there, what for)
POINTS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("vllm.v1.worker.gpu_worker", "Worker.load_model", (), "wrap decoder layers"),
    (
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner._prepare_inputs",
        ("scheduler_output",),
        "see a batch",
    ),
    (
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner.execute_model",
        ("scheduler_output", "intermediate_tensors"),
        "harvest",
    ),
    ("vllm.v1.worker.gpu_model_runner", "GPUModelRunner.sample_tokens", (), "say who was lost"),
    ("vllm.v1.worker.gpu_model_runner", "GPUModelRunner._dummy_run", (), "keep warm-ups plain"),
    (
        "vllm.v1.core.sched.scheduler",
        "Scheduler.update_from_output",
        ("scheduler_output", "model_runner_output"),
        "end lost requests",
    ),
    (
        "vllm.v1.core.sched.scheduler",
        "Scheduler._update_request_with_output",
        ("request", "new_token_ids"),
        "end requests by a rule",
    ),
    ("vllm.v1.core.sched.scheduler", "Scheduler.finish_requests", ("finished_status",), "end lost requests"),
    ("vllm.v1.core.kv_cache_manager", "KVCacheManager.evict_blocks", ("block_ids",), "keep lost blocks out"),
    (
        "vllm.v1.core.kv_cache_utils",
        "generate_block_hash_extra_keys",
        ("request", "start_token_idx", "end_token_idx"),
        "key the prefix cache",
    ),
    (
        "vllm.sampling_params",
        "SamplingParams",
        ("extra_args", "flat_logprobs", "skip_reading_prefix_cache"),
        "requests",
    ),
    ("vllm.forward_context", "set_forward_context", ("skip_compiled",), "probe the residual stream"),
)


#: Of the V2 model runner, looked at where vLLM uses it.
V2 = "vllm.v1.worker.gpu.model_runner"
V2_POINTS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (V2, "GPUModelRunner.prepare_inputs", ("scheduler_output",), "see a batch"),
    (
        V2,
        "GPUModelRunner.execute_model",
        ("scheduler_output", "intermediate_tensors", "dummy_run"),
        "harvest",
    ),
    (V2, "GPUModelRunner.sample_tokens", (), "say who was lost"),
    (V2, "GPUModelRunner._dummy_run", (), "keep warm-ups plain"),
)


def missing(points: tuple[tuple[str, str, tuple[str, ...], str], ...] | None = None) -> list[str]:
    """What this vLLM lacks, in words."""
    found = []
    for module, name, parameters, purpose in POINTS if points is None else points:
        try:
            thing: Any = importlib.import_module(module)
            for part in name.split("."):
                thing = getattr(thing, part)
            known = inspect.signature(thing).parameters
        except (ImportError, AttributeError, ValueError):
            found.append(f"{module}:{name} (to {purpose})")
            continue
        found += [f"{module}:{name}({p}) (to {purpose})" for p in parameters if p not in known]
    return found


def check_version() -> None:
    """Refuse a vLLM that lacks an extension point."""
    from vllm import __version__

    lacking = missing()
    if lacking:
        raise Unsupported(
            f"vLLM {__version__} lacks what trimtab hangs on: {'; '.join(lacking)}. Install vllm{TESTED}"
        )
    if not SpecifierSet(TESTED).contains(__version__, prereleases=True):
        log.warning("trimtab is tested on vllm%s, and this is %s", TESTED, __version__)


def check(config: Any) -> None:
    """Refuse what can be refused before a model is loaded: modes, and families by name."""
    check_config(config)
    check_blocks(config)
    check_family(config.model_config.architecture)


def check_family(architecture: str) -> None:
    """Refuse a family whose layers hand on something else than one residual stream."""
    for name, why in REFUSED.items():
        if architecture.startswith(name):
            raise Unsupported(f"{architecture} is not steered: {why}")


def check_blocks(config: Any) -> None:
    """Refuse a size of blocks that vLLM warns of, and then does not start with."""
    cache, size = config.cache_config, config.cache_config.block_size
    odd = getattr(cache, "user_specified_block_size", False) and size is not None and size % 32
    if config.device_config.device_type == "cpu" and odd and not config.model_config.use_mla:
        raise InputError(f"on a CPU vLLM takes block_size in multiples of 32, not {size}")


def check_layers(config: Any) -> None:
    """Refuse kinds of layers that vLLM cannot compute here: it starts with them, and dies of the first request."""
    inner = config.compilation_config.static_forward_context.values()
    gated = any("GatedDeltaNet" in c.__name__ for layer in inner for c in type(layer).__mro__)
    dtype = str(config.model_config.dtype).removeprefix("torch.")
    if gated and config.device_config.device_type == "cpu" and dtype != "bfloat16":
        raise Unsupported(
            f"vLLM computes gated delta networks (linear attention) on a CPU in bfloat16 only, not in {dtype}: "
            "load the model with dtype='bfloat16'"
        )


def check_config(config: Any) -> None:
    """Refuse modes in which layers see other rows than the batch has, or that have not been proven."""
    from vllm.config import CompilationMode

    parallel, model = config.parallel_config, config.model_config
    executor = parallel.distributed_executor_backend
    unproven = os.environ.get(UNPROVEN, "").split(",")
    refused = {
        # Proven with one worker that runs eagerly.
        "compiled code, several workers or adapters in the V2 model runner (set VLLM_USE_V2_MODEL_RUNNER=0)": (
            config.use_v2_model_runner
            and "v2" not in unproven
            and (
                config.compilation_config.mode != CompilationMode.NONE
                or parallel.world_size > 1
                or config.lora_config is not None
            )
        ),
        "devices other than the CPU": config.device_config.device_type != "cpu",
        "pooling models": model.runner_type != "generate",
        "encoder-decoder models": model.is_encoder_decoder,
        "data parallelism": parallel.data_parallel_size > 1,
        "context parallelism": parallel.prefill_context_parallel_size > 1
        or parallel.decode_context_parallel_size > 1,
        # Each half of a batch would be taken for the whole.
        "dual-batch overlap and micro-batches": parallel.use_ubatching,
        "sequence parallelism": bool(getattr(config.compilation_config.pass_config, "enable_sp", False))
        or getattr(parallel, "use_sequence_parallel_moe", False),
        "fast prefill with shared keys and values": config.cache_config.kv_sharing_fast_prefill,
        "speculative decoding": config.speculative_config is not None,
        # Others than the prefix cache do not know our keys: plain requests could be handed steered blocks.
        "transferred or offloaded keys and values": config.kv_transfer_config is not None
        or getattr(config.cache_config, "kv_offloading_size", None) is not None,
        # Results come back over a socket of this machine.
        "workers on several machines": parallel.nnodes > 1,
        f"workers that {executor!r} starts (set distributed_executor_backend=mp)": executor
        not in (None, "uni", "mp"),
    }
    found = [name for name, on in refused.items() if on]
    if found:
        raise Unsupported(f"the vllm engine does not yet run with {', '.join(found)}")
    if config.use_v2_model_runner and (lacking := missing(V2_POINTS)):
        raise Unsupported(
            f"this vLLM's V2 model runner lacks what trimtab hangs on: {'; '.join(lacking)}. Set "
            "VLLM_USE_V2_MODEL_RUNNER=0"
        )
