from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from relabelling import with_neighbours_swapped
from scipy.stats import ks_2samp
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

from vsgae.cells import Cells
from vsgae.nasbench101 import Space
from vsgae.nasbench101.surrogate import Surrogate, fitting, model, shipped_surrogate
from vsgae.nasbench101.surrogate.__main__ import main
from vsgae.nasbench101.surrogate.features import surrogate_features
from vsgae.nasbench101.surrogate.fitting import Measured, fit
from vsgae.nasbench101.surrogate.model import CHANCE_LEVEL, SHIPPED
from vsgae.nasbench101.surrogate.scoring import calibration, distributions, errors
from vsgae.nasbench101.surrogate.trees import Trees

EPOCHS = (4, 12, 36, 108)
GOLDEN_ACCURACY = [0.8300833, 0.9080371, 0.9418377, 0.8666018, 0.8248124]
GOLDEN_RUNS = [7821.0, 8451.0, 9238.0, 6666.0, 7985.0]


@pytest.fixture
def sample(known: Space) -> Cells:
    """5,000 cells, evenly from the enumeration."""
    return known.cells[np.linspace(0, len(known.cells) - 1, 5000).astype(int)]


@pytest.mark.parametrize(
    "fitted",
    [
        GradientBoostingRegressor(n_estimators=30, max_depth=6, loss="huber", random_state=0),
        GradientBoostingClassifier(n_estimators=30, max_depth=4, random_state=0),
    ],
)
def test_trees_say_what_scikit_learn_says(fitted: GradientBoostingRegressor | GradientBoostingClassifier) -> None:
    rng = np.random.default_rng(0)
    features = np.stack([rng.integers(0, 9, 2000), rng.random(2000), rng.random(2000)], 1).astype(np.float32)
    target = features[:, 0] * features[:, 1] + np.sin(9 * features[:, 2])
    fitted.fit(features, target > 3 if isinstance(fitted, GradientBoostingClassifier) else target)
    trees = Trees.of(fitted)
    expected = getattr(fitted, "decision_function", fitted.predict)(features)
    np.testing.assert_allclose(trees(features), expected, rtol=1e-5, atol=1e-6)
    at_thresholds = np.repeat(trees.value[trees.feature == 1][:50, None], 3, 1)
    expected = getattr(fitted, "decision_function", fitted.predict)(at_thresholds)
    np.testing.assert_allclose(trees(at_thresholds), expected, rtol=1e-5, atol=1e-6)
    again = Trees.read({f"some/{name}": array for name, array in trees.arrays().items()}, "some/")
    assert (again(features) == trees(features)).all()


def test_trees_too_large_for_the_arrays_are_refused() -> None:
    rng = np.random.default_rng(0)
    large = GradientBoostingRegressor(n_estimators=1, max_depth=20).fit(rng.random((500, 1)), rng.random(500))
    with pytest.raises(ValueError, match=r"\d+ nodes in a tree and 1 features; at most 255 of each"):
        Trees.of(large)


def test_features_are_counted_right_on_a_cell_by_hand() -> None:
    matrix = np.zeros((5, 5), int)
    matrix[[0, 0, 1, 1, 2, 3], [1, 2, 3, 4, 3, 4]] = 1  # input -> conv3x3, pool; conv3x3 -> conv1x1, output; ...
    cells = Cells.from_nasbench([(matrix, ["input", "conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "output"])])
    features = {name: column[0] for name, column in surrogate_features(cells).items()}
    expected = {
        "paths_of_1": 0,
        "paths_of_2": 1,
        "paths_of_3": 2,
        "convolutions_most": 2,
        "convolutions_fewest": 1,
        "conv1x1_depth": 2,
        "conv3x3_first": 1,
        "conv3x3_successors": 2,
        "conv1x1_predecessors": 2,
        "conv3x3_width": 64,
        "maxpool3x3_width": 64,
        "input>conv3x3": 1,
        "conv3x3>output": 1,
        "conv3x3>any>output": 1,
        "input>any>conv1x1": 2,
        "input>conv3x3>conv1x1": 1,
        "maxpool3x3>conv1x1>output": 1,
        "conv1x1>conv3x3": 0,
    }
    assert {name: features[name] for name in expected} == expected
    assert not any(">input" in name or "output>" in name for name in features)


def test_features_are_invariant_under_relabelling_but_for_the_odd_channel(sample: Cells) -> None:
    relabelled = surrogate_features(with_neighbours_swapped(sample[::10]))
    for name, column in surrogate_features(sample[::10]).items():
        if name not in ("log_parameters",) and not name.endswith(("_width", "_widest")):
            assert column.tolist() == relabelled[name].tolist(), name
        else:  # who gets the odd channel depends on the order of the nodes
            np.testing.assert_allclose(column, relabelled[name], rtol=0.03, err_msg=name)


def test_the_surrogate_that_is_shipped_is_small_and_has_no_pickle() -> None:
    assert SHIPPED.stat().st_size <= 2_000_000
    with zipfile.ZipFile(SHIPPED) as file:
        for name in file.namelist():
            with file.open(name) as entry:
                assert np.lib.format.read_magic(entry) in ((1, 0), (2, 0))
                assert not np.lib.format.read_array_header_1_0(entry)[2].hasobject


def test_it_is_saved_and_loaded_with_the_same_predictions(sample: Cells, tmp_path: Path) -> None:
    path = tmp_path / "copy.npz"
    shipped_surrogate().save(path)
    copy = Surrogate.load(path)
    for epochs in EPOCHS:
        assert (copy.draw(sample, epochs) == shipped_surrogate().draw(sample, epochs)).all()


@pytest.mark.parametrize("epochs", EPOCHS)
def test_drawn_runs_have_the_predicted_mean_deviation_and_share_of_failures(sample: Cells, epochs: int) -> None:
    cells = sample[::20]
    surrogate = shipped_surrogate()
    predicted = surrogate.predict(cells, epochs)
    runs = surrogate.draw(cells[np.repeat(np.arange(250), 400)], epochs, 1).reshape(250, 400)
    failed = runs <= CHANCE_LEVEL
    assert failed.mean() == pytest.approx(predicted.failure.mean(), rel=0.05, abs=5e-4)
    assert runs.mean() == pytest.approx(predicted.accuracy.mean(), rel=5e-3)
    runs[failed] = np.nan
    usual = predicted.failure < 0.2
    mean, deviation = np.nanmean(runs[usual], 1), np.nanstd(runs[usual], 1)
    total = np.hypot(predicted.run_deviation, predicted.model_deviation)[usual]
    assert np.median(np.abs(mean - predicted.mean[usual]) / total) < 0.06  # 400 runs: 0.05 of a deviation
    np.testing.assert_allclose(np.median(deviation / total), 1, rtol=0.03)
    np.testing.assert_allclose(runs * 9984, np.rint(runs * 9984), atol=1e-6)


def test_repeats_of_a_cell_differ_by_the_deviation_from_run_to_run_alone(sample: Cells) -> None:
    surrogate = shipped_surrogate()
    sample = sample[surrogate.predict(sample).failure < 0.01]
    sample = sample[surrogate.predict(sample, 36).failure < 0.01]
    predicted = surrogate.predict(sample)
    runs = surrogate.draw(sample, repeats=40)
    runs[runs <= CHANCE_LEVEL] = np.nan
    ratio = np.nanstd(runs, 1, ddof=1) / predicted.run_deviation
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    own = (np.nanmean(runs, 1) - predicted.mean) / predicted.model_deviation
    assert np.std(own) == pytest.approx(1, abs=0.15)
    other = surrogate.draw(sample, 36, repeats=40)
    other[other <= CHANCE_LEVEL] = np.nan
    at_36 = np.nanmean(other, 1) - surrogate.predict(sample, 36).mean
    assert np.corrcoef(own, at_36)[0, 1] > 0.5  # what is better than expected is so at every budget


def test_the_same_seed_gives_the_same_draws_and_another_seed_others(sample: Cells) -> None:
    surrogate = shipped_surrogate()
    first = surrogate.draw(sample, seed=1)
    assert first.shape == (5000, 3)
    assert (first == surrogate.draw(sample, seed=1)).all()
    assert (first != surrogate.draw(sample, seed=2)).mean() > 0.9


def test_golden_predictions_and_draws_of_the_surrogate_that_is_shipped(known: Space) -> None:
    """Of 5 cells. If features, trees or draws change on purpose, raise model.VERSION."""
    cells = known.cells[[0, 100, 10_000, 200_000, 423_623]]
    predicted = shipped_surrogate().predict(cells)
    np.testing.assert_allclose(predicted.accuracy, GOLDEN_ACCURACY, atol=1e-6)
    assert (shipped_surrogate().draw(cells, 36)[:, 0] * 9984).round().tolist() == GOLDEN_RUNS


def test_other_features_than_those_fitted_to_are_an_error(sample: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    features = surrogate_features(sample[:1])
    monkeypatch.setattr(model, "surrogate_features", lambda _: dict(reversed(features.items())))
    with pytest.raises(ValueError, match="the features of this version are not those"):
        shipped_surrogate().predict(sample[:1])


def test_a_file_that_is_damaged_or_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    path.write_bytes(SHIPPED.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"some.npz is no surrogate, or damaged"):
        Surrogate.load(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"some.npz is no surrogate, or damaged"):
        Surrogate.load(path)


@pytest.mark.parametrize("source", ["official", "surrogate"])
def test_only_a_measured_table_can_be_fitted_to(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", source]) == 2
    assert capsys.readouterr().err == f"error: table is '{source}'; it must be the path of a table of measured cells\n"


def test_no_cells_are_no_error(sample: Cells) -> None:
    assert shipped_surrogate().predict(sample[:0]).accuracy.shape == (0,)
    assert shipped_surrogate().draw(sample[:0]).shape == (0, 3)


def test_a_wrong_budget_or_number_of_repeats_is_named(sample: Cells) -> None:
    for ask in (shipped_surrogate().predict, shipped_surrogate().draw):
        with pytest.raises(ValueError, match="epochs is 100; it must be one of 4, 12, 36, 108"):
            ask(sample, 100)
    with pytest.raises(ValueError, match="repeats is 0; it must be at least 1"):
        shipped_surrogate().draw(sample, repeats=0)


@pytest.fixture
def invented(known: Space) -> Measured:
    """3,000 cells with INVENTED accuracies: more 3x3 convolutions are better, many poolings make a run fail."""
    rng = np.random.default_rng(0)
    cells = known.cells[np.sort(rng.choice(len(known.cells), 3000, replace=False))]
    convolutions, poolings = (cells.operations == 1).sum(1).numpy(), (cells.operations == 3).sum(1).numpy()
    level = np.array([0.3, 0.5, 0.8, 0.9])
    own = 0.01 * rng.standard_normal((3000, 1))
    accuracy = level + 0.015 * convolutions[:, None] + own + 0.01 * rng.standard_normal((3000, 4))
    failed = rng.random((3000, 4)) < np.where(poolings >= 3, 0.3, 0.01)[:, None]
    return Measured(cells, np.where(failed, 949 / 9984, accuracy), np.arange(3000) % 10 == 0)


def test_a_fit_finds_what_is_in_the_runs_and_does_not_see_the_cells_held_out(
    invented: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fitting._LOCATION, "n_estimators", 60)
    surrogate = fit(invented, jobs=1)
    poolings = (invented.cells.operations == 3).sum(1).numpy()
    for epochs in (36, 108):
        predicted = surrogate.predict(invented.cells, epochs)
        convolutions = (invented.cells.operations == 1).sum(1).numpy()
        assert np.corrcoef(predicted.mean, convolutions)[0, 1] > 0.9
        assert predicted.failure[poolings >= 3].mean() == pytest.approx(0.3, abs=0.1)
        assert predicted.failure[poolings < 3].mean() == pytest.approx(0.01, abs=0.01)
        assert np.median(predicted.run_deviation) == pytest.approx(0.01, rel=0.25)
        assert np.median(predicted.model_deviation) == pytest.approx(0.01, rel=0.25)
    assert surrogate.failure_loading[0] < 0.5  # what fails at one budget says nothing of another, beyond the poolings
    changed = invented.accuracy.copy()
    changed[invented.held_out] = 0.5
    again = fit(Measured(invented.cells, changed, invented.held_out), jobs=1)
    assert (again.draw(invented.cells) == surrogate.draw(invented.cells)).all()


def test_a_table_without_failed_runs_is_refused(invented: Measured) -> None:
    accuracy = np.maximum(invented.accuracy, 0.2)
    with pytest.raises(ValueError, match="0% of the runs of 4 epochs failed; some must, and some must not"):
        fit(Measured(invented.cells, accuracy, invented.held_out), jobs=1)


def test_a_table_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err.startswith("error: source is '")


@pytest.mark.measured
def test_it_reaches_on_held_out_cells_what_its_model_card_says(measured_table: Path) -> None:
    measured = Measured.read(str(measured_table))
    assert measured.held_out.sum() == 2007
    scores = errors(shipped_surrogate(), measured).set_index(["epochs", "nodes"]).loc[(108, "2 to 7")]
    assert scores["Kendall tau"] > 0.86
    assert scores["of the constant's"] < 0.61
    assert scores["without failed runs"] < 0.36
    assert scores["its ceiling"] > scores["Kendall tau"]
    fits = calibration(shipped_surrogate(), measured)
    fits = fits[fits["cells"] > 1000]
    assert fits["standardised"].between(0.9, 1.1).all()
    assert fits["inside 90 %"].between(0.86, 0.94).all()


@pytest.mark.measured
def test_drawn_runs_are_distributed_as_measured_ones(measured_table: Path) -> None:
    tests, histogram = distributions(shipped_surrogate(), Measured.read(str(measured_table)))
    assert (tests["p"][tests["cells"] == "held out"] > 0.01).all()  # of 199 simulated sets; the smallest p is 0.005
    np.testing.assert_allclose(histogram.drop(columns="epochs, nodes").sum(axis=1), 100)


@pytest.mark.measured
def test_the_cells_held_out_follow_from_their_hashes_alone(measured_table: Path, tmp_path: Path) -> None:
    table = pd.read_csv(measured_table)
    part = tmp_path / "part.csv"
    table[::7].to_csv(part, index=False)
    some, every = Measured.read(str(part)), Measured.read(str(measured_table))
    hashes = table["module_hash"][::7]
    assert some.held_out.sum() == sum(int(text[-8:], 16) % 10 == 0 for text in hashes)
    assert 0.09 < every.held_out.mean() < 0.11
    assert ks_2samp(every.accuracy[every.held_out, 3], every.accuracy[~every.held_out, 3]).pvalue > 0.05
