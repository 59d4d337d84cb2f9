"""Flags about a corpus that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from trimtab.data.options import AGAINST


def corpus_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--against`, `--questions`, `--strict` and `--min-positives`, passed on as keywords."""
    for option in (
        click.option("--min-positives", type=int, default=1, help="Refuse a concept with fewer texts."),
        click.option("--strict", is_flag=True, help="Refuse what would be skipped, such as empty files."),
        click.option(
            "--against",
            type=click.Choice(AGAINST),
            default=None,
            help="Judged responses: what the negatives are [default: neg, else default].",
        ),
        click.option("--questions", type=int, default=None, help="Take only the first so many questions."),
    ):
        function = option(function)
    return function
