"""The neutral pool: what every dose is measured against must not change by accident."""

from trimtab.data.neutral import neutral_hash, neutral_questions, neutral_texts, questions_hash

FEELING = {"love", "hate", "happy", "sad", "angry", "afraid", "joy", "terrible", "wonderful", "cry", "laugh"}


def test_the_pool_is_as_described():
    texts = neutral_texts()
    assert len(texts) >= 60 and len(set(texts)) == len(texts)
    assert all(20 <= len(t.split()) <= 60 for t in texts)
    words = {w.strip(".,;'").lower() for t in texts for w in t.split()}
    assert not words & FEELING
    assert len({t.split()[0] + t.split()[1] for t in texts}) > 50  # varied openings


def test_the_pool_is_pinned():
    """Norms measured on other texts differ: changing them changes every dose."""
    assert neutral_hash() == "c9738227c440a717790878a50dfcb0f4"


#: Words that say nothing of a subject.
SMALL = set("the how and for are who why what when which where does with from this that there can".split())


def test_every_text_answers_a_question_of_its_own():
    """Row by row: question and text share a word beyond the small ones, and no question is asked twice."""
    pairs = list(zip(neutral_questions(), neutral_texts(), strict=True))
    assert len({q for q, _ in pairs}) == len(pairs) and all(q.endswith("?") for q, _ in pairs)
    for question, text in pairs:
        asked, said = ({w.strip(".,;?'").lower() for w in t.split()} - SMALL for t in (question, text))
        begun = [{w[:3] for w in words if len(w) > 2} for words in (asked, said)]
        assert begun[0] & begun[1], (question, text)
    assert not {w.strip(".,?").lower() for q, _ in pairs for w in q.split()} & FEELING


def test_the_questions_are_pinned():
    assert questions_hash() == "e83fa7263e06ba5c036cdfe80280bf1f"
