"""Novel trigrams are counted exactly."""

import zlib

import numpy as np
import pytest

from trimtab.errors import FormatError, InputError
from trimtab.evaluation.coherence import Reference, coherent, novel_spans, trigram_hashes, words

CORPUS = ["The cat sat on the mat.", "I don't know why the cat sat."]


def test_words_are_lower_case_and_keep_apostrophes():
    assert words("Don't STOP, 3 cats'!") == ["don't", "stop", "cats"]


def test_hashes_are_crc32_of_three_words():
    assert trigram_hashes("The cat sat.").tolist() == [zlib.crc32(b"the cat sat")]
    assert len(trigram_hashes("two words")) == 0


def test_coherence_is_one_on_the_corpus_and_counts_novel_trigrams():
    ref = Reference.from_texts(CORPUS)
    assert ref.coherence(CORPUS) == 1
    # the cat sat | cat sat under | sat under the: one of three is known
    assert ref.coherence(["The cat sat under the"]) == pytest.approx(1 / 3)
    # pooled over texts: 1 + 4 known of 3 + 4
    assert ref.coherence(["The cat sat under the", "the cat sat on the mat"]) == pytest.approx(5 / 7)


def test_no_trigram_crosses_texts():
    ref = Reference.from_texts(["a b", "c d", *CORPUS])
    assert not ref.known("b c d").any()


def test_word_order_matters():
    ref = Reference.from_texts(CORPUS)
    assert ref.coherence(["mat the on sat cat the"]) == 0


def test_empty_text_is_not_coherent():
    ref = Reference.from_texts(CORPUS)
    value = ref.coherence(["", "Hi."])
    assert np.isnan(value) and not coherent(value, 0.9)
    assert coherent(0.85, 0.9) and not coherent(0.84, 0.9)


def test_novel_spans_point_at_the_words():
    text = "The cat sat. Under the mat."
    (first, *_), ref = list(novel_spans(Reference.from_texts(CORPUS), text)), Reference.from_texts(CORPUS)
    assert text[slice(*first)] == "cat sat. Under"
    assert list(novel_spans(ref, CORPUS[0])) == []


def test_reference_file(tmp_path):
    ref = Reference.from_texts(CORPUS)
    path = tmp_path / "trigrams.npz"
    np.savez_compressed(path, hashes=ref.hashes)
    assert np.array_equal(Reference.load(path).hashes, ref.hashes)
    with pytest.raises(FormatError, match="no such"):
        Reference.load(tmp_path / "none.npz")
    path.write_bytes(b"not a zip")
    with pytest.raises(FormatError, match="trigram reference"):
        Reference.load(path)
    with pytest.raises(InputError, match="no trigrams"):
        Reference.from_texts([])
