"""The neutral pool: what every dose is measured against must not change by accident."""

from trimtab.data.neutral import neutral_hash, neutral_texts

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
