"""`trimtab eval …`: a group whose evaluations are imported only when they are called."""

from __future__ import annotations

import difflib
from importlib import import_module

import click

from .verbs import VERBS

#: evaluation: (module of trimtab.cli, one line of help)
EVALUATIONS = {
    "dilemmas": ("eval_dilemmas", "Does a vector move decisions in dilemmas it has never seen?"),
    "leaderboard": (
        "eval_leaderboard",
        "Results of several models and prompts side by side, under four rules.",
    ),
    "judge": ("eval_answers", "Mark answers with a model as judge, over any OpenAI-compatible endpoint."),
    "classifier": ("eval_answers", "Mark answers with a classifier fitted on a corpus, split by question."),
    "perplexity": ("eval_answers", "Mark answers by their likelihood under the plain model."),
    "repetition": ("eval_answers", "Mark answers by how little they repeat themselves."),
    "ab-choice": ("eval_choices", "A/B questions (CAA): the log-ratio towards the matching answer."),
    "multiple-choice": ("eval_choices", "Knowledge questions that steering should not move."),
    "readout": ("eval_readout", "Does a direction read corpora it was not made from?"),
    "steer-read": ("eval_steer_read", "Steer each concept, read all others in the same pass."),
}


class EvaluationGroup(click.Group):
    """Reads the table for its help, and imports one evaluation's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(EVALUATIONS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in EVALUATIONS:
            return None
        module = import_module(f"trimtab.cli.{EVALUATIONS[cmd_name][0]}")
        found = (v for v in vars(module).values() if isinstance(v, click.Command) and v.name == cmd_name)
        return next(found)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args[0] not in EVALUATIONS:
            near = difflib.get_close_matches(args[0], EVALUATIONS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            known = ", ".join(EVALUATIONS)
            raise click.UsageError(f"unknown evaluation '{args[0]}'.{hint} Known: {known}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Evaluations"):
            formatter.write_dl([(name, line) for name, (_, line) in EVALUATIONS.items()])


evaluate = EvaluationGroup(
    "eval",
    help="Evaluate vectors and answers. Every figure has an n, an interval and something to compare it with.",
    short_help=VERBS["eval"][1],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
