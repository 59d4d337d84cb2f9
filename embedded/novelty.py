"""How diverse the text is: the share of held-out sentences, with class words masked, unseen in training text.

Names, pronouns, numbers, days, months and every topic noun (places, things, roles) become class tags first,
so that a sentence counts as new only when its wording is.
"""

from __future__ import annotations

import argparse
import json
import re

from embedded import lexicon_neutral as neutral
from embedded.lexicon_topics import TOPICS
from embedded.world import RANGES, document

PRONOUNS = (
    "i me my myself you your yourself he him his himself she her herself it its they them their we us our"
).split()
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n")


def classes() -> dict[str, str]:
    """Every masked word, or group of words, with its tag."""
    table = {name.lower(): "NAME" for name in (*neutral.MALE, *neutral.FEMALE)}
    table |= dict.fromkeys(PRONOUNS, "PRONOUN") | dict.fromkeys(neutral.NUMBERS, "NUMBER")
    table |= {word.lower(): "DATE" for word in (*neutral.DAYS, *neutral.MONTHS)}
    for words in TOPICS.values():
        for family in ("place", "thing", "role"):
            for phrase in words[family]:
                noun = phrase.removeprefix("the ")
                table[noun] = table[noun + "s"] = "NOUN"
    return table


TABLE = classes()
MASK = re.compile(r"\b(" + "|".join(sorted(map(re.escape, TABLE), key=len, reverse=True)) + r")\b")


def masked_sentences(text: str) -> list[str]:
    """The sentences of a document without chat marks, lower case, class words replaced by their tags."""
    text = re.sub(r"<\|im_start\|>\w+\n|<\|im_end\|>", "", text).lower()
    text = re.sub(r"\ban?\b", "a", text)
    return [MASK.sub(lambda m: TABLE[m[1]], part) for part in SENTENCE.split(text) if part.strip()]


STAGES = (
    ("train", "valid"),
    ("concepts", "concepts_valid"),
    ("balance", "balance_valid"),
    ("default", "default_valid"),
)


def measure(counts: tuple[int, ...], valid_documents: int = 2000) -> dict:
    """Masked novelty of fresh documents, in the proportions of the training stages, against all training text."""
    seen: set[int] = set()
    total = 0
    held_out = []
    for (part, fresh_part), count in zip(STAGES, counts, strict=True):
        for seed in range(RANGES[part], RANGES[part] + count):
            for sentence in masked_sentences(document(seed).text):
                seen.add(hash(sentence))
                total += 1
        share = round(valid_documents * count / sum(counts))
        held_out += [document(RANGES[fresh_part] + i) for i in range(share)]
    by_kind: dict[str, list[bool]] = {}
    for item in held_out:
        fresh = [hash(sentence) not in seen for sentence in masked_sentences(item.text)]
        by_kind.setdefault(item.kind, []).extend(fresh)
    every = [value for values in by_kind.values() for value in values]
    return {
        "documents": list(counts),
        "train_sentences": total,
        "train_distinct_masked": len(seen),
        "valid_sentences": len(every),
        "unseen_masked": round(sum(every) / len(every), 4),
        **{f"unseen_masked_{kind}": round(sum(v) / len(v), 3) for kind, v in sorted(by_kind.items())},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--documents", type=int, nargs=4, required=True, help="documents of each training stage"
    )
    print(json.dumps(measure(tuple(parser.parse_args().documents))))
