"""An engine whose server was killed ends, too: nobody can reach it any more, and it would keep the memory of a model.

A process that is killed cannot tell its children, and vLLM's engine process does not look.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import connection

log = logging.getLogger("vllm.trimtab")
#: Seconds that vLLM's own shutdown gets before the process ends without it.
GRACE = 10.0


#: What vLLM calls the processes that it starts; any other one may outlive its parent.
PROCESSES = ("EngineCore", "VllmWorker")
THREAD = "trimtab-orphan"


def watch() -> None:
    """Look after the parent, in a thread; once in a process, and only in those of vLLM's engine."""
    parent = multiprocessing.parent_process()
    known = any(t.name == THREAD for t in threading.enumerate())
    if parent is None or known or not multiprocessing.current_process().name.startswith(PROCESSES):
        return
    threading.Thread(target=_wait, args=(parent.sentinel,), name=THREAD, daemon=True).start()


def _wait(sentinel: int) -> None:
    connection.wait([sentinel])
    log.warning("trimtab: the process that started this one is gone; it ends")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
