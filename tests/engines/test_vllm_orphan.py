"""A worker whose parent is killed ends by itself."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
SCRIPT = """
    import multiprocessing, os, signal, sys, time

    def worker(deaf):
        from trimtab.engines.vllm import orphan
        orphan.GRACE = 0.5
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        orphan.watch()
        print(os.getpid(), flush=True)
        time.sleep(60)

    if __name__ == "__main__":
        multiprocessing.get_context("spawn").Process(target=worker, args=(sys.argv[1] == "deaf",)).start()
        time.sleep(60)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("kind", ["hears", "deaf"])
def test_a_worker_ends_when_its_parent_is_killed(kind, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen([sys.executable, str(script), kind], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
        until = time.monotonic() + 20
        while lives(pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert not lives(pid)
