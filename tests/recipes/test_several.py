"""Several methods from one pass give what each gives by itself."""

from dataclasses import replace

import numpy as np
import pytest

from trimtab.data.contrast import Contrast
from trimtab.engines import load_engine
from trimtab.errors import InputError
from trimtab.extraction import make
from trimtab.recipes import extract
from trimtab.recipes.several import extract_several
from trimtab.sites import Site


@pytest.fixture(autouse=True)
def few_neutral_texts(monkeypatch):
    from trimtab.data.neutral import neutral_texts

    few = neutral_texts()[:2]
    monkeypatch.setattr("trimtab.recipes.neutral.neutral_texts", lambda: few)


def contrasts():
    subjects = ("I", "you", "we", "they")
    texts = {
        "joy": ("{s} feel really happy today.", "{s} feel really sad today."),
        "anger": ("{s} seem very angry now.", "{s} seem very tall now."),
    }
    return [
        Contrast(c, *[[t.format(s=s) for s in subjects] for t in sides], paired=True)
        for c, sides in texts.items()
    ]


def test_several_methods_share_a_pass_and_change_nothing(monkeypatch):
    engine = load_engine("tiny", "reference")
    methods = [make("mean_diff"), make("pca_diff")]
    sites = [Site(1), Site(2)]
    passes, collect = [], engine.collect

    def counted(*args, **kwargs):
        passes.append(1)
        return collect(*args, **kwargs)

    monkeypatch.setattr(engine, "collect", counted)
    found = extract_several(engine, contrasts(), methods, sites)
    assert len(passes) == 1 and list(found) == ["mean_diff", "pca_diff"]
    for method in methods:
        alone = extract(engine, contrasts(), method, layers="1-2")
        together = found[method.name]
        assert together.concepts == alone.concepts
        assert together.calibration.get("read_layer") == alone.calibration.get("read_layer")
        assert replace(together.origin, parameters={}) == replace(alone.origin, parameters={})
        # what other methods collect may tell this one more (the share of pairs that agree), never less
        assert set(alone.origin.parameters) <= set(together.origin.parameters)
        for site in sites:
            for (name, ours), (_, theirs) in zip(
                together.table(site).fields(), alone.table(site).fields(), strict=True
            ):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_method_that_the_data_do_not_suit_is_refused_before_the_pass():
    engine = load_engine("tiny", "reference")
    single = [Contrast("joy", ["I feel happy."], ["you feel sad.", "we feel sad."], paired=False)]
    with pytest.raises(InputError):
        extract_several(engine, single, [make("pca_diff")], [Site(1)])
    assert engine.forwards == 0
