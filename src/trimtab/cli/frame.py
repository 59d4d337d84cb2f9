"""The frame around every verb: shared flags, errors as messages, exit codes.

    @verb("extract", output="Where to write the vector file.")
    @click.argument("model")
    @click.option("--layers", default="all", help="Layers to read, e.g. 12-16,50%.")
    def extract(desk: Desk, model: str, layers: str, output: Path | None) -> None:
        \"\"\"Extract concept vectors from contrasting texts.\"\"\"
        ...
        desk.result({"file": str(output)}, text=f"wrote {output}")

A verb returns None (0, or 3 when units of its run failed) or an exit code of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab import __version__
from trimtab.errors import TrimtabError

from .output import Output
from .progress import Progress
from .runs import Run
from .settings import (
    ADDING,
    PRESENTATION,
    command_line,
    keys_of,
    load_settings,
    misspelt_environment,
    resolved,
)
from .verbs import VERBS, VerbGroup

if TYPE_CHECKING:
    from trimtab.sites import ModelInfo

OK, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = (
    "Every flag is also a key of --config FILE.yaml and a variable TRIMTAB_<FLAG>; "
    "flag > environment > file > default."
)


@dataclass
class _State:
    """What must outlive click's contexts, because errors are shown after they are gone."""

    debug: bool = False


class Desk:
    """What a verb is handed: its settings, its voice, its progress bar and its run folder."""

    def __init__(self, verb: str, settings: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
        self.verb = verb
        self.command: str = shared.get("command") or f"trimtab {verb}"
        self.settings = dict(settings)
        self.seed: int = shared["seed"]
        self.runs: list[Run] = []
        self.output = Output(as_json=shared["as_json"], quiet=shared["quiet"])
        self.result, self.print = self.output.result, self.output.print
        self.note, self.warn = self.output.note, self.output.warn
        self._fresh: bool = shared.get("fresh") or False
        self._runs_dir = Path(shared.get("runs_dir") or "runs")

    @property
    def as_json(self) -> bool:
        return self.output.as_json

    def progress(self, label: str, total: int | None = None) -> Progress:
        """A progress bar on stderr."""
        return Progress(label, total, quiet=self.output.quiet)

    def run(
        self, slug: str, *, identity: Mapping[str, Any] | None = None, model: ModelInfo | None = None
    ) -> Run:
        """Open this verb's run folder; the same settings and `identity` continue an earlier run on the same `model`.

        `identity` holds what changes results without being a flag: hashes of the data, say. The number format of the
        model joins it: a server may come back with another one.
        """
        of = {} if model is None else {"dtype": model.dtype}
        run = Run.open(
            self._runs_dir,
            self.verb,
            slug,
            settings={k: v for k, v in self.settings.items() if k not in PRESENTATION | ADDING},
            identity={**(identity or {}), **of},
            seed=self.seed,
            revision=None if model is None else model.revision,
            fresh=self._fresh,
        )
        self.runs.append(run)
        kept = f", {len(run.done)} finished units kept" if run.done else ""
        self.note(f"run folder {run.folder}{kept}")
        return run


class _Verb(click.Command):
    """Refuses a flag that is given twice and takes one value: click would keep the last one and say nothing."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            *_, given = self.make_parser(ctx).parse_args(list(args))
            helped = self.get_help_option(ctx) in given
            for param in () if helped else given:
                if given.count(param) > 1 and _takes_one(param):
                    name, count = max(param.opts, key=len), given.count(param)
                    raise click.UsageError(f"{name} takes one value, and is given {count} times.", ctx)
        return super().parse_args(ctx, args)


def _takes_one(param: click.Parameter) -> bool:
    """Whether only the last of several values would count; a plain flag says the same twice."""
    if not isinstance(param, click.Option) or param.multiple or param.count:
        return False
    return not param.is_flag or bool(param.secondary_opts)


def verb(name: str, *, output: str | None = None, runs: bool = False) -> Callable[..., click.Command]:
    """Make a function the verb `name` ("eval dilemmas" is `dilemmas` in the group `eval`), with the shared flags.

    `output` is the help text of `-o`, which is passed to the function as a Path or None; `runs` adds
    `--fresh` and `--runs-dir` for verbs that open a run folder.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        def call(**values: Any) -> int:
            return _perform(function, name, values)

        line = VERBS.get(name, ("", None))[1]
        command = click.command(name.rpartition(" ")[2], _Verb, short_help=line, epilog=_EPILOG)(call)
        command.params += _shared_options(output, runs)
        command.context_settings = {**_CONTEXT, **command.context_settings}
        return command

    return decorate


def run(argv: Sequence[str] | None = None, group: click.Group | None = None) -> int:
    """Run a command line; every way out of it is an exit code and, at most, one message on stderr."""
    state = _State(debug=bool(os.environ.get("TRIMTAB_DEBUG")))
    try:
        code = (group or root).main(
            args=None if argv is None else list(argv), prog_name="trimtab", standalone_mode=False, obj=state
        )
        return code if isinstance(code, int) else OK
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if state.debug:
            traceback.print_exc()
        print(f"error: {_explain(error, state.debug)}", file=sys.stderr)
        return error.exit_code if isinstance(error, TrimtabError) else FAILED


def _explain(error: Exception, debug: bool) -> str:
    if isinstance(error, TrimtabError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    hint = "" if debug else "\nThis is a fault of trimtab. Run again with --debug and report the traceback."
    return f"{type(error).__name__}: {error}{hint}"


def _perform(function: Callable[..., int | None], name: str, values: dict[str, Any]) -> int:
    """Build the desk, call the verb with stdout guarded, and settle the exit code."""
    command = click.get_current_context().command
    settings = resolved(command, values)
    line = command_line(name, command, values)
    shared = {key: values.pop(key, None) for key in ("as_json", "quiet", "seed", "fresh", "runs_dir")}
    shared["command"] = line
    desk = Desk(name.replace(" ", "-"), settings, shared)
    for warning in misspelt_environment(os.environ, keys_of(command)):
        desk.warn(warning)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        # What a library warns of becomes a line of ours, without the source line that raised it.
        warnings.showwarning = lambda message, *_, **__: desk.warn(str(message))
        code = function(desk, **values)
    if desk.as_json and not desk.output.spoken:
        raise RuntimeError(f"the verb '{desk.verb}' gave no result; --json promises exactly one line")
    if code is None:
        code = PARTIAL if any(r.failed for r in desk.runs) else OK
    return code


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.find_root().obj, _State):
        ctx.find_root().obj.debug = True


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        print(f"trimtab {__version__}")
        ctx.exit()


def _shared_options(output: str | None, runs: bool) -> list[click.Parameter]:
    options: list[click.Parameter] = []
    if output is not None:
        options.append(click.Option(["-o", "--output"], type=click.Path(path_type=Path), help=output))
    options.append(click.Option(["--seed"], type=int, default=0, help="Seed of every random choice."))
    if runs:
        options += [
            click.Option(["--fresh"], is_flag=True, help="Ignore finished units of an earlier, equal run."),
            click.Option(["--runs-dir"], default="runs", help="Where run folders are made."),
        ]
    return [
        *options,
        click.Option(["--json", "as_json"], is_flag=True, help="Print the result as one line of JSON."),
        click.Option(["--quiet"], is_flag=True, help="No notes and no progress; warnings stay."),
        # Eager, and before --debug: the file and the environment must be known when other flags are read.
        click.Option(
            ["--config"], is_eager=True, expose_value=False, callback=load_settings, metavar="FILE.yaml",
            help="Read flags from a YAML file.",
        ),
        click.Option(
            ["--debug"], is_flag=True, is_eager=True, expose_value=False, callback=_set_debug,
            help="Show the traceback of an error.",
        ),
    ]  # fmt: skip


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}

root = VerbGroup(
    "trimtab",
    help="Read and steer language models through their activations.",
    epilog=_EPILOG,
    context_settings=_CONTEXT,
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, help="Show the version.",
            callback=_show_version,
        )
    ],
)  # fmt: skip
