"""The worker's part of the plugin, in every process that vLLM starts, also if nobody steers.

Nothing changes for requests without a plan. It may be called more than once, also in one process. What vLLM loads by
its entry points is `trimtab.server.vllm.plugin`, which adds the front end's part.
"""

from __future__ import annotations

import logging

log = logging.getLogger("vllm.trimtab")


def register() -> bool:
    """Hang the engine into this process of vLLM. One that does not fit keeps serving plain requests and refuses those
    with plans; that is logged."""
    from trimtab.engines.vllm import extension_points, orphan, refusal
    from trimtab.errors import Unsupported

    orphan.watch()
    try:
        extension_points.check_version()
    except Unsupported as error:
        log.warning("trimtab: %s", error)
        refusal.install(str(error))
        return False

    from vllm.v1.worker.gpu_worker import Worker

    from trimtab.engines.vllm import cache_keys, losses, stops, worker

    cache_keys.install()
    losses.install()
    stops.install()
    worker.patch(Worker)
    return True
