"""The synthetic worlds hold what they promise: right methods find the truth, mistaken ones the decoy."""

import numpy as np

import worlds


def cosine(a, b):
    return abs(float(a @ b)) / (np.linalg.norm(a) * np.linalg.norm(b))


def first_axis(rows):
    return np.linalg.svd(rows, full_matrices=False)[2][0]


def test_planted_truth_is_the_mean_difference():
    world = worlds.planted()
    assert cosine((world.positive - world.negative).mean(0), world.truth) > 0.99
    assert cosine(first_axis(world.positive - world.positive.mean(0)), world.truth) < 0.9


def test_centring_deletes_the_shared_shift():
    world = worlds.shared_shift()
    d = world.positive - world.negative
    assert cosine(first_axis(d), world.truth) > 0.99
    assert cosine(d.mean(0), world.truth) > 0.99
    assert cosine(first_axis(d - d.mean(0)), world.decoy) > 0.99


def test_a_massive_channel_is_where_the_variance_is_and_says_nothing():
    world = worlds.massive_channel()
    rows = np.concatenate([world.positive, world.negative])
    assert cosine(first_axis(rows - rows.mean(0)), world.decoy) > 0.99
    assert cosine((world.positive - world.negative).mean(0), world.truth) > 0.98


def test_identical_rows_have_no_difference():
    world = worlds.identical()
    assert not (world.positive - world.negative).any() and np.array_equal(
        world.positive[0], world.positive[-1]
    )


def test_a_family_too_alike():
    family = worlds.alike()
    for world in family:
        assert cosine(world.truth, family[0].truth) > 0.8 and cosine(world.truth, world.decoy) > 0.9
        assert cosine((world.positive - world.negative).mean(0), world.truth) > 0.99


def test_files_differ_at_every_site():
    file = worlds.vectors()
    numbers = [
        (d.norm, d.mean, d.std, d.typical_norm) for s in file.sites for d in [file.direction("joy", s)]
    ]
    for column in zip(*numbers, strict=True):
        assert len(set(column)) == len(file.sites)
