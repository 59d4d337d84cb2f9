"""Readouts: score = (h . row - offset) / scale, and readings that know their shape."""

import numpy as np
import pytest

import worlds
from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.readouts import Readings, Readout
from trimtab.sites import Site

FILE = worlds.vectors()
H = np.random.default_rng(1).standard_normal((6, 24)).astype(np.float32)


def test_raw_scores_are_coordinates():
    readout = Readout.from_vectors(FILE)
    for site in FILE.sites:
        want = np.stack([H @ FILE.direction(c, site).unit for c in FILE.concepts], axis=1)
        got = readout.apply(site, H)
        assert got.shape == (6, 2) and got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert readout.apply(Site(2), H[0]).shape == (2,)


def test_z_scores_use_the_stored_mean_and_std():
    readout = Readout.from_vectors(FILE, [Site(5)], ["calm"], z=True)
    d = FILE.direction("calm", Site(5))
    np.testing.assert_allclose(readout.apply(Site(5), H)[:, 0], (H @ d.unit - d.mean) / d.std, atol=1e-5)
    assert readout.concepts == ("calm",) and readout.sites == (Site(5),) and readout.z


def test_z_needs_calibration():
    bare = worlds.vectors().only(sites=[Site(2)])
    table = bare.table(Site(2))
    for changes in (
        {"mean": None},
        {"std": None},
        {"std": np.array([1.0, 0.0])},
        {"mean": np.array([np.nan, 0])},
    ):
        from dataclasses import replace

        changed = replace(bare, tables={Site(2): replace(table, **changes)})
        with pytest.raises(InputError, match="z readings"):
            Readout.from_vectors(changed, z=True)
        assert Readout.from_vectors(changed).concepts == ("joy", "calm")


def test_refusals():
    with pytest.raises(UnknownName):
        Readout.from_vectors(FILE, concepts=["fear"])
    with pytest.raises(UnknownName):
        Readout.from_vectors(FILE, [Site(3)])
    with pytest.raises(InputError, match="'before' or 'after'"):
        Readout.from_vectors(FILE, at="during")
    with pytest.raises(InputError, match="at least one"):
        Readout(("joy",), {}, {}, {})
    with pytest.raises(Mismatch):
        Readout.from_vectors(FILE).check_model(worlds.model(10, 16))


def test_readings():
    values = np.arange(12.0).reshape(3, 2, 2)
    readings = Readings(values, np.arange(3), (Site(2), Site(5)), ("joy", "calm"))
    assert list(readings.of("calm", Site(5))) == [3.0, 7.0, 11.0]
    with pytest.raises(InputError, match="2 sites"):
        readings.of("joy")
    with pytest.raises(InputError, match="no reading of 'fear'"):
        readings.of("fear", Site(2))
    one = Readings(values[:, :1], np.arange(3), (Site(2),), ("joy", "calm"))
    assert list(one.of("joy")) == [0.0, 4.0, 8.0]
    with pytest.raises(InputError, match="shape"):
        Readings(values, np.arange(2), (Site(2), Site(5)), ("joy", "calm"))


def test_a_site_that_was_not_read_is_named():
    readings = Readings(np.zeros((1, 1, 1)), np.arange(1), (Site(2),), ("joy",))
    with pytest.raises(InputError, match="layer_2"):
        readings.of("joy", Site(3))
