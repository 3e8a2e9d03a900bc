from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from vsgae.cells import Cells
from vsgae.sampling import (
    IN_LATENT_SPACE,
    SAMPLING_METHODS,
    SamplingConfig,
    assign_bins,
    fill_up,
    principal_components,
    sample,
    sample_bins,
    sample_far_apart,
    sample_in_proportion,
    search_bins,
)
from vsgae.splits import edit_strata


@pytest.fixture
def some(space: Cells) -> Cells:
    return space[::200]


@pytest.fixture
def latents(some: Cells) -> torch.Tensor:
    """Of each cell a point that depends on it, with ties: as many components as there are kinds of nodes, and more."""
    counts = torch.stack([(some.operations == kind).sum(1) for kind in range(1, 4)], 1)
    return torch.cat([counts, some.num_edges[:, None], some.num_nodes[:, None] ** 2], 1).float()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("method", SAMPLING_METHODS)
@pytest.mark.parametrize("share", [0.01, 0.02, 0.1, 0.5, 0.9, 1.0])
def test_exactly_the_wanted_number_of_distinct_cells_the_same_for_the_same_seed(
    some: Cells, latents: torch.Tensor, method: str, share: float
) -> None:
    size = round(share * len(some))
    chosen = sample(some, size, method, 1, latents)
    assert chosen.dtype == torch.int64
    assert len(chosen.unique()) == len(chosen) == size
    assert chosen[0] >= 0
    assert chosen[-1] < len(some)
    assert (chosen.diff() > 0).all()
    assert chosen.equal(sample(some, size, method, 1, latents))
    if share < 1:
        assert not chosen.equal(sample(some, size, method, 2, latents))


@pytest.mark.parametrize(("method", "of"), [("length", lambda cells: cells.num_nodes.numpy()), ("edit", edit_strata)])
def test_every_stratum_has_its_share(some: Cells, method: str, of: object) -> None:
    strata = of(some)  # type: ignore[operator]
    chosen = sample(some, 300, method, 0)
    total, taken = Counter(strata.tolist()), Counter(strata[chosen].tolist())
    assert all(abs(taken[stratum] - total[stratum] * 300 / len(some)) < 1 for stratum in total)


def test_a_sample_in_proportion_is_at_random_within_a_stratum(rng: np.random.Generator) -> None:
    strata = np.array([0] * 6 + [1] * 4)
    times = Counter(i for _ in range(3000) for i in sample_in_proportion(strata, 5, rng).tolist())
    assert all(abs(times[i] - 1500) < 150 for i in range(10))


def test_bins_span_the_points_and_are_shifted_by_a_proportion_of_their_size() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.9, 10.0], [4.0, 39.0], [4.0, 40.0]])  # four bins: 1 wide, 10 high
    index, from_centre = assign_bins(points, 4, np.zeros(2))
    assert index.tolist() == [0, 5, 6, 18, 18]  # bin (x, y) is 5 x + y, since there is a fifth for what a shift leaves
    np.testing.assert_allclose(from_centre, [np.hypot(0.5, 5), np.hypot(0.5, 5), np.hypot(0.4, 5), *_far(39, 40)])
    index, from_centre = assign_bins(points, 4, np.array([0.2, 0.5]))  # bins begin at -0.2 and at -5
    assert index.tolist() == [0, 5, 11, 24, 24]
    np.testing.assert_allclose(from_centre[:3], [0.3, 0.3, np.hypot(0.4, 0)], atol=1e-9)


def _far(*heights: float) -> list[float]:
    """From the centre of the last bin, (3.5, 35), for points at x = 4."""
    return [float(np.hypot(0.5, height - 35)) for height in heights]


def test_points_that_are_all_the_same_fill_one_bin() -> None:
    assert set(assign_bins(np.ones((5, 4)), 7, np.full(4, 0.5))[0]) == {0}
    assert search_bins(np.ones((5, 4)), 3) >= 1


def test_as_many_bins_as_fill_about_the_wanted_number() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(12.0)] * 2), -1).reshape(-1, 2)
    for bins in (1, 2, 3, 4, 6, 12):
        assert search_bins(grid, bins**2) == bins
    assert search_bins(grid, 10) == 3


@pytest.mark.parametrize("size", [40, 60, 200])
def test_a_bin_gives_the_point_that_is_closest_to_its_centre(size: int) -> None:
    points = np.random.default_rng(0).random((400, 2)) * [1, 3]
    shift = np.random.default_rng(5).random(2)  # the sampler's first draw
    bin_of, from_centre = assign_bins(points, search_bins(points, size), shift)
    closest = {min(np.flatnonzero(bin_of == b).tolist(), key=lambda i: from_centre[i]) for b in set(bin_of)}
    chosen = set(sample_bins(points, size, np.random.default_rng(5)).tolist())
    assert chosen <= closest if len(closest) >= size else chosen > closest


def test_too_many_filled_bins_lose_some_at_random(rng: np.random.Generator) -> None:
    points = np.arange(8.0)[:, None]
    times = Counter(i for _ in range(2000) for i in sample_bins(points, 3, rng).tolist())
    assert set(times) == set(range(8))


def test_with_fewer_missing_than_bins_that_have_points_left_some_bins_give_one_more(rng: np.random.Generator) -> None:
    bin_of = np.array([7, 7, 7, 2, 2, 5])
    pairs = Counter(tuple(sorted(bin_of[fill_up(bin_of, 2, rng)].tolist())) for _ in range(3000))
    assert set(pairs) == {(2, 5), (2, 7), (5, 7)}  # never two of one bin
    assert all(abs(times - 1000) < 120 for times in pairs.values())
    times = Counter(i for _ in range(3000) for i in fill_up(bin_of, 2, rng).tolist())
    assert all(abs(times[i] - 667) < 100 for i in (0, 1, 2))  # any of a bin's points


def test_with_more_missing_than_bins_that_have_points_left_every_bin_gives_one_again_and_again(
    rng: np.random.Generator,
) -> None:
    bin_of = np.array([7, 7, 7, 2, 2, 5])
    for _ in range(100):
        assert sorted(bin_of[fill_up(bin_of, 3, rng)].tolist()) == [2, 5, 7]
        four = Counter(bin_of[fill_up(bin_of, 4, rng)].tolist())
        assert four in ({7: 2, 2: 1, 5: 1}, {7: 1, 2: 2, 5: 1})
        assert Counter(bin_of[fill_up(bin_of, 5, rng)].tolist()) == {7: 2, 2: 2, 5: 1}
        assert sorted(fill_up(bin_of, 6, rng).tolist()) == list(range(6))


def test_principal_components_are_those_of_the_covariance(rng: np.random.Generator) -> None:
    latents = (rng.standard_normal((500, 6)) * [1, 5, 2, 9, 0.1, 3]).astype(np.float32)
    points = principal_components(latents + 7)
    _, singular, _ = np.linalg.svd(latents - latents.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.linalg.norm(points, axis=0), singular[:4], rtol=1e-4)
    np.testing.assert_allclose(np.corrcoef(points.T), np.eye(4), atol=1e-5)


def test_far_points_are_preferred_and_equal_ones_come_last(rng: np.random.Generator) -> None:
    clusters = np.concatenate(
        [np.zeros((500, 2)), np.full((500, 2), 100.0), np.array([200, -200]) + rng.random((3, 2))]
    )
    for _ in range(20):
        three = sample_far_apart(clusters, 3, rng)
        assert {min(i // 500, 2) for i in three.tolist()} == {0, 1, 2}
    every = sample_far_apart(clusters, 900, rng)
    assert len(set(every.tolist())) == 900


@pytest.mark.parametrize("size", [0, -3, 2120])
def test_an_impossible_size_is_named(some: Cells, size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}; it must be between 1 and the number of cells, {len(some)}"):
        sample(some, size, "uniform", 0)


def test_a_wrong_method_and_missing_latents_are_named(some: Cells) -> None:
    with pytest.raises(ValueError, match="method is 'best'; allowed are length, edit, latent, uniform, k_means_pp"):
        sample(some, 5, "best", 0)  # type: ignore[arg-type]
    for method in IN_LATENT_SPACE:
        with pytest.raises(ValueError, match=f"method '{method}' needs the latents of all {len(some)} cells"):
            sample(some, 5, method, 0)


def test_by_default_all_cells_are_chosen_and_otherwise_a_share_that_the_seed_draws(
    some: Cells, latents: torch.Tensor
) -> None:
    assert SamplingConfig().chosen(some, 0).equal(torch.arange(len(some)))
    config = SamplingConfig(method="latent", share=0.05)
    chosen = config.chosen(some, 3, latents)
    assert chosen.equal(sample(some, round(0.05 * len(some)), "latent", 3, latents))
    assert not chosen.equal(config.chosen(some, 4, latents))
    assert len(SamplingConfig(share=1e-9).chosen(some, 0)) == 1
    assert SamplingConfig(method="edit", size=16).chosen(some, 3).equal(sample(some, 16, "edit", 3))


def test_latents_are_used_only_where_a_part_is_drawn_in_their_space() -> None:
    assert {method: SamplingConfig(method=method, share=0.5).uses_latents for method in SAMPLING_METHODS} == {
        method: method in ("latent", "k_means_pp") for method in SAMPLING_METHODS
    }
    assert not SamplingConfig(method="latent").uses_latents
    assert SamplingConfig(method="latent", size=3).uses_latents


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "best"}, "method is 'best'; allowed are length, edit, latent, uniform, k_means_pp"),
        ({"share": 0.0}, r"share is 0\.0; it must be above 0 and at most 1"),
        ({"share": 1.1}, r"share is 1\.1; it must be above 0 and at most 1"),
        ({"share": float("nan")}, "share is nan"),
        ({"size": 0}, r"size is 0 and share 1\.0; a size must be at least 1, and has no share"),
        ({"size": 16, "share": 0.1}, r"size is 16 and share 0\.1; a size must be at least 1, and has no share"),
    ],
)
def test_a_wrong_sampling_setting_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**changes)  # type: ignore[arg-type]
