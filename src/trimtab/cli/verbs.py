"""The table of verbs, and a group that imports a verb's module only when that verb is called.

`trimtab --help` reads the table alone: this is what keeps it under 0.3 s, without numpy and torch.
"""

from __future__ import annotations

import difflib
from importlib import import_module

import click

from trimtab.errors import TrimtabError

# verb: (group in the help page, one line of help). The module is trimtab.cli.<verb>.
VERBS = {
    "data": ("Make", "Begin, check or count a corpus, before any model loads."),
    "extract": ("Make", "Extract concept vectors from contrasting texts."),
    "generate": ("Use", "Generate text, steered and read by concept vectors."),
    "chat": ("Use", "Talk to a model or a server; plan and readings change on the fly."),
    "serve": ("Use", "Serve a model over HTTP (OpenAI's API), steered and read by request."),
    "eval": ("Judge", "Evaluate: dilemmas, judges, classifiers, choices, readouts."),
    "compare": ("Judge", "Compare vectors with vectors, and runs with runs."),
    "sweep": ("Judge", "Which layer, what dose, and does it work? With intervals and baselines."),
    "calibrate": ("Judge", "Find how far vectors may be pushed, and store it in their file."),
    "score": ("Judge", "Score the texts of a run again, without a model."),
    "read": ("Look", "Read existing texts with concept vectors, token by token."),
    "watch": ("Look", "Watch the readings of a server's traffic, live."),
    "inspect": ("Look", "Show what a vector file holds and which model it fits."),
    "convert": ("Move", "Convert vector files between formats, and do sums with them."),
    "ls": ("Move", "List the vector files of a folder and of the library."),
    "demo": ("Help", "Extract, steer and read the embedded model; writes report.html."),
    "verify": ("Help", "Prove that an engine steers, captures and reads exactly, on this machine."),
    "doctor": ("Help", "Engines, versions, GPU, what is missing and the line that installs it."),
}


class VerbGroup(click.Group):
    """The root command; commands added by hand (in tests) stand beside those of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.commands or cmd_name not in VERBS:
            return self.commands.get(cmd_name)
        return _load(cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"unknown verb '{name}'.{hint} Known: {', '.join(known)}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, (group, line) in VERBS.items():
            groups.setdefault(group, []).append((name, line))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


def _load(name: str) -> click.Command:
    module_name = f"trimtab.cli.{name.replace('-', '_')}"
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise TrimtabError(
            f"the verb '{name}' is not in this installation: {module_name} is missing. "
            "Run: pip install --force-reinstall --no-deps trimtab"
        ) from None
    for value in vars(module).values():
        if isinstance(value, click.Command) and value.name == name:
            return value
    raise TrimtabError(f'{module_name} defines no command. Decorate its function with @verb("{name}").')
