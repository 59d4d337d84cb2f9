"""hotwire-vllm: vectors by file name, layer and scale in `extra_args`; on a CPU with a torch kernel ("shimmed")."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peer import Dialect

from trimtab.errors import Unsupported
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site


class Hotwire(Dialect):
    """Vectors lie in a folder that the worker reads; the kit's are written there, for the worker to find by name."""

    name, plugin = "hotwire", "hotwire_on_cpu"

    def __init__(self) -> None:
        self.version = version("hotwire-vllm") + " (shimmed for the CPU)"
        self.folder = Path(tempfile.mkdtemp(prefix="hotwire-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        os.environ["HOTWIRE_VECTORS"] = str(self.folder)
        os.environ["HOTWIRE_SLOTS"] = "256"
        self._announce()

    def _announce(self) -> None:
        """vLLM finds a plugin by its entry point, in this process and in those that it starts."""
        info = self.folder / "hotwire_on_cpu-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: hotwire-on-cpu\nVersion: 0\n", encoding="utf-8"
        )
        entry = f"[vllm.general_plugins]\n{self.plugin} = hotwire_on_cpu:register\n"
        (info / "entry_points.txt").write_text(entry, encoding="utf-8")
        here = [str(self.folder), str(Path(__file__).parent)]
        sys.path[:0] = here
        os.environ["PYTHONPATH"] = os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])])

    def check_placement(self, p: ResolvedPlacement) -> None:
        """All tokens only: `decode_only` goes by the length of a span, not by positions."""
        if p.ranges != ((0, None),) or p.relative:
            raise Unsupported(
                "hotwire adds absolute vectors, to all tokens or to those that come one at a time"
            )

    def extra(self, plan: ResolvedPlan, capture: Sequence[Site]) -> dict[str, Any]:
        """A JSON list; a vector that is not there yet is put into the folder."""
        import torch

        entries = []
        for p in plan.effective:
            file = self.folder / f"{p.vector}.pt"
            if not file.exists():
                torch.save(torch.tensor(plan.vectors[p.vector]), file)
            entries.append({"id": p.vector, "layer": p.site.layer, "scale": p.coefficients.shift})
        return {"hotwire": json.dumps(entries)} if entries else {}
