"""`trimtab serve`: an OpenAI-compatible server whose requests carry plans, readings and captures."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from trimtab.engines import ENGINES
from trimtab.errors import InputError, MissingDependency
from trimtab.server.vllm import starting

from .frame import Desk, verb
from .models import open_engine
from .servers import LOOPBACK

#: Seconds that requests may run on after a signal.
GRACE = 60


@verb("serve")
@click.argument("model")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.option("--engine", type=click.Choice(list(ENGINES)), default="vllm", help="What runs the model.")
@click.option("--host", default="127.0.0.1", help="Where to listen; this machine only by default.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on.")
@click.option("--api-key", default=None, help="Key that clients must send as a bearer token.")
@click.option("--vectors", multiple=True, help="Vector files to load; the first one is read by default.")
@click.option("--vector-dir", default=None, help="Folder from which clients may load vector files.")
@click.option("--allow-inline", is_flag=True, help="Take vectors inside requests, too.")
@click.option("--own-server", is_flag=True, help="Put vLLM behind our own server instead of vLLM's.")
@click.option("--rules", default=None, metavar="FILE", help="Rules that hold for every request.")
@click.option("--feed", is_flag=True, help="Let clients watch the readings of all traffic: trimtab watch.")
@click.option("--log-prompts", is_flag=True, help="Log the text of requests and answers (not with vllm).")
@click.option(
    "--grace",
    type=click.IntRange(0),
    help="Seconds that requests may run on after a signal (60; vllm: 0).",
)
@click.option("--dtype", default=None, help="Weights as float32, bfloat16 or float16 (the engine's choice).")
@click.option("--device", default=None, help="Device to run on (not with vllm).")
@click.option("--dry-run", is_flag=True, help="Show what would be started, and stop.")
def serve(
    desk: Desk,
    model: str,
    flags: tuple[str, ...],
    engine: str,
    host: str,
    port: int,
    api_key: str | None,
    vectors: tuple[str, ...],
    vector_dir: str | None,
    allow_inline: bool,
    own_server: bool,
    rules: str | None,
    feed: bool,
    log_prompts: bool,
    grace: int | None,
    dtype: str | None,
    device: str | None,
    dry_run: bool,
) -> None:
    """Serve MODEL (a folder, a hub id or "embedded") over HTTP, steered and read by request.

    With vllm, the default, this is vLLM's own server with our plugin, and all other flags are vLLM's:
    trimtab serve MODEL --port 8001 --max-model-len 4096. Any other engine runs behind a small server of ours, and with
    --own-server vLLM does, too. `--engine remote` of the other verbs speaks to all of them.
    """
    if model.startswith("-"):
        raise InputError(f"the model comes first: trimtab serve MODEL {model} …")
    for path in (*vectors, *(p for p in (vector_dir, rules) if p)):
        if not Path(path).exists():
            raise InputError(f"there is no {path}")
    if desk.as_json and not dry_run:
        raise InputError("a server has no result to print: leave --json out, or add --dry-run")
    ours = _settings(vectors, vector_dir, allow_inline)
    if rules:
        ours["TRIMTAB_RULES"] = str(Path(rules).resolve())
    if feed:
        ours["TRIMTAB_FEED"] = "1"
    if log_prompts:
        ours["TRIMTAB_LOG_PROMPTS"] = "1"
    if not api_key and host not in LOOPBACK and not os.environ.get("VLLM_API_KEY"):
        desk.note(
            f"{host} is not this machine alone, and there is no --api-key: whoever reaches it may use it"
        )
    place = ["--host", host, "--port", str(port)]
    if engine == "vllm" and device is not None:
        raise InputError("vLLM chooses its device by how it was built; leave --device out")
    if engine == "vllm" and own_server and rules:
        raise InputError("vLLM judges rules in its own server only: leave --own-server out")
    if engine == "vllm" and not own_server:
        acting = _check_reading(rules, feed, ours)
        if log_prompts:
            raise InputError(
                "--log-prompts needs a server of ours: add --own-server or --engine transformers, or leave it out"
            )
        more = [*(["--dtype", dtype] if dtype else []), *(["--seed", str(desk.seed)] if desk.seed else [])]
        more += _ending(flags, grace)
        if acting:
            more += _stepping(desk, flags)
        # Not as a flag, which every user of the machine can read.
        secret = {"VLLM_API_KEY": api_key} if api_key else {}
        _vllm(desk, model, [*place, *more, *flags], ours, secret, dry_run)
        return
    if flags and engine != "vllm":
        raise InputError(f"{flags[0]} is no flag of trimtab serve; only vLLM takes flags of its own")
    more = _vllm_options(flags) if flags else {}
    shown = {"engine": engine, "model": model, "host": host, "port": port, **more, "environment": dict(ours)}
    if dry_run:
        desk.result(shown, text=" ".join(f"{k}={v}" for k, v in shown.items()))
        return
    where = (host, port, api_key, GRACE if grace is None else grace)
    _own(desk, model, engine, where, ours, dtype=dtype, device=device, **more)


# Flags of vLLM are not ours to know.
serve.context_settings["ignore_unknown_options"] = True


def _settings(vectors: tuple[str, ...], folder: str | None, inline: bool) -> dict[str, str]:
    """What the flags say, as the environment in which a server starts."""
    out: dict[str, str] = {}
    if vectors:
        out["TRIMTAB_READOUT_VECTORS"] = os.pathsep.join(str(Path(v).resolve()) for v in vectors)
    if folder:
        out["TRIMTAB_VECTOR_DIR"] = str(Path(folder).resolve())
    if inline:
        out["TRIMTAB_ALLOW_INLINE"] = "1"
    return out


def _check_reading(rules: str | None, feed: bool, ours: Mapping[str, str]) -> bool:
    """What can be known before vLLM has loaded a model for minutes; whether a rule aborts or steers."""
    from trimtab.server.ruling import operator_rules
    from trimtab.server.settings import Settings
    from trimtab.server.vllm.judging import acts

    judged = operator_rules(Path(rules)) if rules else ()
    for name, given in (("rules", rules), ("feed", feed)):
        if given and not Settings.from_environment({**os.environ, **ours}).readout:
            raise InputError(f"--{name} has nothing to read with: add --vectors FILE")
    return any(map(acts, judged))


def _ending(flags: Sequence[str], grace: int | None) -> list[str]:
    """vLLM's flag for what `--grace` says; without one it ends requests that run on the spot."""
    if grace is None:
        return []
    if starting.value(flags, "--shutdown-timeout") is not None:
        raise InputError("--grace is vLLM's --shutdown-timeout: give one of them")
    return ["--shutdown-timeout", str(grace)]


def _stepping(desk: Desk, flags: Sequence[str]) -> list[str]:
    """Rules that abort or steer act exactly where one worker runs one step after the other."""
    for names in (("--tensor-parallel-size", "-tp"), ("--pipeline-parallel-size", "-pp")):
        if (starting.value(flags, *names) or "1") != "1":
            raise InputError(
                f"{names[0]}: rules that abort or steer are proven on one worker only; let them tag and log"
            )
    if starting.value(flags, "--async-scheduling") is not None:
        raise InputError(
            "--async-scheduling runs a step ahead of rules that abort or steer: leave it out, or let them tag and log"
        )
    if starting.value(flags, "--no-async-scheduling") is not None:
        return []
    desk.note(
        "rules that abort or steer are judged between two steps: vLLM runs without asynchronous scheduling"
    )
    return ["--no-async-scheduling"]


def _vllm(
    desk: Desk,
    model: str,
    flags: list[str],
    ours: Mapping[str, str],
    secret: Mapping[str, str],
    dry_run: bool,
) -> None:
    """Become vLLM's own server."""
    command = starting.command(model, flags)
    environment = {**starting.environment(os.environ), **ours, **secret}
    said = {**ours, "VLLM_PLUGINS": environment["VLLM_PLUGINS"]}
    shown = " ".join([*(f"{k}={shlex.quote(v)}" for k, v in said.items()), shlex.join(command)])
    if dry_run:
        desk.result({"command": command, "environment": said}, text=shown)
        return
    desk.note(f"starting vLLM: VLLM_PLUGINS={environment['VLLM_PLUGINS']}")
    os.execve(command[0], command, environment)


def _vllm_options(flags: tuple[str, ...]) -> dict[str, Any]:
    """vLLM's flags as options of its engine, read by vLLM's own parser."""
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError as error:
        raise MissingDependency.of("vllm", "vllm", "trimtab serve --engine vllm") from error
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser(exit_on_error=False))
    try:
        found, unknown = parser.parse_known_args(list(flags))
    except (argparse.ArgumentError, SystemExit) as error:
        raise InputError(f"vLLM does not take these flags: {error}") from error
    if unknown:
        raise InputError(f"{unknown[0]} is no flag of vLLM's engine")
    return {k: v for k, v in vars(found).items() if v != parser.get_default(k)}


def _own(
    desk: Desk,
    model: str,
    engine: str,
    place: tuple[str, int, str | None, int],
    ours: Mapping[str, str],
    **options: Any,
) -> None:
    """Load the engine and serve it until a signal: no request is taken from then on, and those that run have `grace`
    seconds to end."""
    import uvicorn

    from trimtab.server import journal
    from trimtab.server.app import build
    from trimtab.server.settings import Settings

    host, port, key, grace = place
    settings = Settings.from_environment({**os.environ, **ours})
    loaded = open_engine(desk, model, engine, **options)
    desk.note(f"{loaded.info.id} on http://{host}:{port}/v1")
    with loaded:
        app = build(loaded, settings, key)
        feed = app.state.trimtab.counter.feed

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: Any) -> None:
                """A feed has no end of its own, and uvicorn waits for every answer to end."""
                if feed is not None:
                    feed.close()
                super().handle_exit(sig, frame)

        journal.write(prompts=settings.log_prompts)
        plain = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": grace}
        Server(uvicorn.Config(app, host=host, port=port, **plain)).run()
