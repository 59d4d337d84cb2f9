"""`trimtab serve`: an OpenAI-compatible server whose requests carry plans, readings and captures."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from trimtab.errors import InputError

from .frame import Desk, verb


@verb("serve")
@click.argument("model")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.option("--engine", type=click.Choice(["vllm"]), default="vllm", help="What runs the model.")
@click.option("--vectors", multiple=True, help="Vector files to load; the first one is read by default.")
@click.option("--vector-dir", default=None, help="Folder from which clients may load vector files.")
@click.option("--allow-inline", is_flag=True, help="Take vectors inside requests, too.")
@click.option("--dry-run", is_flag=True, help="Show the command and what it runs with, and stop.")
def serve(
    desk: Desk,
    model: str,
    flags: tuple[str, ...],
    engine: str,
    vectors: tuple[str, ...],
    vector_dir: str | None,
    allow_inline: bool,
    dry_run: bool,
) -> int | None:
    """Serve MODEL (a folder, a hub id or "embedded") over HTTP, steered and read by request.

    All other flags go to vLLM's own server: trimtab serve MODEL --port 8001 --max-model-len 4096 (and, after `--`,
    those that trimtab has as well). It listens on this machine only, unless `--host` says otherwise.
    """
    from trimtab.server.vllm import starting

    for path in (*vectors, *([vector_dir] if vector_dir else [])):
        if not Path(path).exists():
            raise InputError(f"there is no {path}")
    command = starting.command(model, flags)
    environment = starting.environment(os.environ)
    if vectors:
        environment["TRIMTAB_READOUT_VECTORS"] = os.pathsep.join(str(Path(v).resolve()) for v in vectors)
    if vector_dir:
        environment["TRIMTAB_VECTOR_DIR"] = str(Path(vector_dir).resolve())
    if allow_inline:
        environment["TRIMTAB_ALLOW_INLINE"] = "1"
    ours = {k: v for k, v in environment.items() if k.startswith("TRIMTAB_") or k == "VLLM_PLUGINS"}
    shown = " ".join([*(f"{k}={shlex.quote(v)}" for k, v in ours.items()), shlex.join(command)])
    if dry_run:
        desk.result({"command": command, "environment": ours}, text=shown)
        return None
    if desk.as_json:
        raise InputError("a server has no result to print: leave --json out, or add --dry-run")
    desk.note(shown)
    os.execve(command[0], command, environment)


# Flags of vLLM are not ours to know.
serve.context_settings["ignore_unknown_options"] = True
