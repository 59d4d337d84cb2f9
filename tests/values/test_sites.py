"""Addresses: how layers are written, how sites sort, and what a model refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import worlds
from trimtab.errors import InputError, Mismatch, UnknownName, Unsupported
from trimtab.sites import STREAMS, ModelInfo, Site, resolve_layer, resolve_layers


@pytest.mark.parametrize(
    ("spec", "layers", "expected"),
    [
        (3, 10, 3),
        ("3", 10, 3),
        (-1, 10, 9),
        ("-4", 10, 6),
        ("0%", 10, 0),
        ("50%", 10, 5),
        ("60%", 36, 21),  # floor(21.6)
        ("99.9%", 10, 9),
        ("100%", 10, 9),  # not block 10: min(L - 1, floor(p * L / 100))
        ("100%", 1, 0),
    ],
)
def test_one_layer(spec, layers, expected):
    assert resolve_layer(spec, layers) == expected


@pytest.mark.parametrize("spec", [10, -11, "101%", "five", "", "3.5", "1e1", None, "--1"])
def test_no_such_layer(spec):
    with pytest.raises(InputError):
        resolve_layer(spec, 10)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("2-4", (2, 3, 4)),
        ("7,2-4,-1,50%", (2, 3, 4, 5, 7, 9)),
        ("40-60%", (4, 5, 6)),
        ("40%-60%", (4, 5, 6)),
        ("all", tuple(range(10))),
        ([1, "90%", 1], (1, 9)),
        ("auto,0", (0, 6)),
        (" 3 , 4 ", (3, 4)),
        (0, (0,)),
    ],
)
def test_many_layers(spec, expected):
    assert resolve_layers(spec, 10, auto=6) == expected


@pytest.mark.parametrize("spec", ["4-2", "0-10", "", [], "all,x", "50%-40%"])
def test_malformed_layers(spec):
    with pytest.raises(InputError):
        resolve_layers(spec, 10)


def test_auto_without_calibration_names_the_mend():
    with pytest.raises(InputError, match="trimtab sweep"):
        resolve_layers("auto", 10)


@given(st.integers(1, 200), st.floats(0, 100))
def test_percentages_stay_inside(layers, percent):
    assert 0 <= resolve_layer(f"{percent:.4f}%", layers) <= layers - 1


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(STREAMS)), min_size=1))
def test_sites_sort_in_forward_order_and_keys_read_back(pairs):
    sites = [Site(*p) for p in pairs]
    ranks = [(s.layer, STREAMS.index(s.stream)) for s in sorted(sites)]
    assert ranks == sorted(ranks)
    assert [Site.from_key(s.key) for s in sites] == sites


def test_forward_order():
    order = [
        Site(0, "resid_pre"),
        Site(0, "q"),
        Site(0, "head_out"),
        Site(0, "mlp_act"),
        Site(0),
        Site(1, "resid_pre"),
    ]
    turned = order[::-1]
    assert sorted(turned) == order
    assert Site(3).key == "layer_3" and Site(3, "mlp_out").key == "layer_3.mlp_out"


@pytest.mark.parametrize("key", ["layer", "layer_x", "3", "layer_3.", "layer_3.mlp.out", "xlayer_3"])
def test_what_is_not_a_site(key):
    with pytest.raises(InputError):
        Site.from_key(key)


@pytest.mark.parametrize("layer", [-1, True, "3", 1.0, None])
def test_a_site_is_resolved(layer):
    with pytest.raises(InputError, match="resolve_layers"):
        Site(layer)


def test_an_unknown_stream_names_the_nearest():
    with pytest.raises(UnknownName, match="resid_post"):
        Site(0, "resid_pots")


def test_a_model_says_what_it_has():
    info = ModelInfo("m", 2, 8, {Site(0): 8, Site(1): 8, Site(0, "mlp_out"): 8})
    assert info.width(Site(1)) == 8
    with pytest.raises(InputError, match="2 blocks, 0 to 1"):
        info.width(Site(2))
    with pytest.raises(Unsupported, match="there: resid_post"):
        info.width(Site(1, "mlp_out"))


def test_a_vector_of_another_width_is_refused_in_words():
    info = worlds.model(width=24)
    info.check(Site(2), 24, "the vector")
    with pytest.raises(Mismatch, match="another model"):
        info.check(Site(2), 25, "the vector")
