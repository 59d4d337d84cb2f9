"""Twenty dilemmas of our own in the published schema, with a table of theories beside them."""

from pathlib import Path

from trimtab.data.dilemmas import Dilemma, load_dilemmas

#: Nats per unit of displacement along axis 0.
GAMMA = 0.5
FILE = Path(__file__).parent / "dilemmas" / "dilemmas.csv"


def small_dilemmas() -> list[Dilemma]:
    """The file, with values of theories."""
    return load_dilemmas(FILE)


def logits(text, moved):
    """For the planted engine: Yes gains GAMMA times the displacement along axis 0 where acting is honest, and loses it
    where it is not; the letter A gains the displacement."""
    for d in small_dilemmas():
        for a in d.asked:
            if d.situation in text and f"Proposed action: {a.text}\n" in text:
                sign = 1 if a.kind == "to_do" else -1
                return {
                    "Yes": GAMMA * moved[0] * sign * d.label("honesty") + (0.3 if "shop" in text else 0),
                    "No": 0.0,
                }
    return {"A": moved[0], "B": 0.5}
