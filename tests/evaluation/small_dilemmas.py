"""Twenty dilemmas of our own in the published schema, with a table of theories beside them."""

from pathlib import Path

from trimtab.data.dilemmas import Dilemma, load_dilemmas

FILE = Path(__file__).parent / "dilemmas" / "dilemmas.csv"


def small_dilemmas() -> list[Dilemma]:
    """The file, with values of theories."""
    return load_dilemmas(FILE)
