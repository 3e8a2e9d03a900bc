import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyarrow import parquet

from vsgae.cells import Cells
from vsgae.nasbench101 import Space, labels, read_tfrecord
from vsgae.nasbench101.cache import cache_directory
from vsgae.nasbench101.labels import LabelConfig, label_digest, load_labels
from vsgae.nasbench101.release import import_release
from vsgae.nasbench101.surrogate import Surrogate

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def frame(some: tuple[Cells, list[str]]) -> pd.DataFrame:
    """A measured table, not in the order of the enumeration. ITS VALUES ARE INVENTED."""
    hashes = some[1]
    rng = np.random.default_rng(0)
    columns = {"validation_accuracy_108": rng.random(15), "validation_accuracy_4": rng.random(15)}
    table = pd.DataFrame({"module_hash": hashes, **columns, "training_time_108": 1000 + rng.random(15)})
    return table.sort_values("module_hash", ignore_index=True)


def written(frame: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("column", ["validation_accuracy_108", "validation_accuracy_4", "training_time_108"])
def test_a_measured_table_gives_its_column_in_the_order_of_the_enumeration(
    suffix: str, column: str, frame: pd.DataFrame, known: Space, some: tuple[Cells, list[str]], tmp_path: Path
) -> None:
    metric, _, epochs = column.rpartition("_")
    config = LabelConfig(source=written(frame, tmp_path / f"t{suffix}"), metric=metric, epochs=int(epochs))
    loaded = load_labels(config)
    cells, hashes = some
    assert loaded.cells.equal(cells).all()
    assert known.hashes.take(loaded.index.numpy()).to_pylist() == hashes
    expected = frame.set_index("module_hash")[column].loc[hashes]
    assert loaded.values.dtype == torch.float32
    assert loaded.values.tolist() == expected.astype(np.float32).tolist()
    assert len(loaded) == 15
    assert loaded.config == config
    assert loaded.digest == label_digest(config)
    assert loaded.description == (
        f"measured: t{suffix}, {metric} at {epochs} epochs, one run each, 15 of 423,624 cells"
    )


@pytest.mark.measured
def test_the_measured_cells_are_read_whole(measured_table: Path) -> None:
    loaded = load_labels(LabelConfig(source=str(measured_table)))
    assert loaded.description.endswith("validation_accuracy at 108 epochs, one run each, 20,001 of 423,624 cells")
    assert loaded.cells.num_nodes.bincount().tolist() == [0, 0, 1, 1, 5, 130, 2917, 16947]
    assert (loaded.index.diff() > 0).all()
    assert loaded.values.mean().item() == pytest.approx(0.9104, abs=5e-5)
    assert loaded.values.std().item() == pytest.approx(0.0379, abs=5e-5)
    ninths = loaded.values.double() * 9984  # every accuracy is a multiple of 1/9984
    assert (ninths - ninths.round()).abs().max() < 1e-3


@pytest.mark.parametrize("metric", labels.METRICS)
@pytest.mark.parametrize("repeat", ["mean", 0, "1", 2])
def test_an_imported_release_gives_the_mean_of_its_runs_or_one_of_them(
    metric: str, repeat: str | int, only108: Path, full: Path, some: tuple[Cells, list[str]]
) -> None:
    import_release(only108)
    import_release(full)
    for epochs, path, kind in ((108, only108, "only108"), (12, full, "full")):
        rows = [row for row in read_tfrecord(path).to_pylist() if row["epochs"] == epochs]
        values = {name: [row[f"final_{metric}"] for row in rows if row["module_hash"] == name] for name in some[1]}
        loaded = load_labels(LabelConfig(metric=metric, epochs=epochs, repeat=repeat))
        assert loaded.cells.equal(some[0]).all()
        expected = [sum(runs) / 3 if repeat == "mean" else runs[int(repeat)] for runs in values.values()]
        np.testing.assert_allclose(loaded.values.numpy(), expected, rtol=1e-7)
        runs = "mean of 3 runs" if repeat == "mean" else f"run {repeat} of 0 to 2"
        assert loaded.description == (
            f"official release ({kind}), {metric} at {epochs} epochs, {runs}, 15 of 423,624 cells"
        )


def test_the_official_source_without_an_import_is_an_error_and_nothing_stands_in_for_it(
    frame: pd.DataFrame, only108: Path, tmp_path: Path
) -> None:
    written(frame, tmp_path / "official.csv")
    for ask in (load_labels, label_digest):
        with pytest.raises(ValueError, match=r"import FILE.*download.*--data surrogate.*--data TABLE"):
            ask(LabelConfig(source="official"))
    import_release(only108)
    load_labels(LabelConfig(source="official"))
    with pytest.raises(ValueError, match="no official release with runs of 4 epochs"):
        load_labels(LabelConfig(source="official", epochs=4))


def test_without_a_source_labels_are_predicted_until_a_release_is_imported(only108: Path) -> None:
    assert LabelConfig().source == "surrogate"
    import_release(only108)
    assert LabelConfig().source == "official"
    with pytest.raises(ValueError, match="no official release with runs of 4 epochs"):  # none stands in for it
        load_labels(LabelConfig(epochs=4))
    [release] = cache_directory().glob("*only108*")
    release.write_bytes(release.read_bytes()[:1000])
    with pytest.raises(ValueError, match="no official release"):  # nor for a damaged one
        load_labels(LabelConfig())


def test_the_surrogate_labels_every_cell_with_runs_drawn_once_for_all(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [load_labels(LabelConfig(source="surrogate", epochs=36, repeat=repeat)) for repeat in ("mean", 0, 1, 2)]
    mean, *runs = loaded
    for label, kind in zip(loaded, ("mean of 3 runs", "run 0 of 0 to 2"), strict=False):
        assert label.description == (
            f"surrogate: PREDICTED, not measured, validation_accuracy at 36 epochs, {kind}, 423,624 of 423,624 cells"
        )
    torch.testing.assert_close(mean.values, torch.stack([run.values for run in runs]).mean(0))
    assert (mean.index == torch.arange(423_624)).all()
    assert len({label.digest for label in loaded}) == 4
    assert all((run.values != runs[0].values).float().mean() > 0.9 for run in runs[1:])

    [drawn] = own_cache.glob("*surrogate-36*")
    monkeypatch.setattr(Surrogate, "draw", None)  # from now on they come from the cache
    assert torch.equal(load_labels(mean.config).values, mean.values)
    monkeypatch.undo()
    drawn.write_bytes(drawn.read_bytes()[:1000])
    assert torch.equal(load_labels(mean.config).values, mean.values)


def test_a_release_damaged_in_the_cache_is_an_error(only108: Path) -> None:
    path = import_release(only108).path
    chunks = parquet.read_metadata(path).row_group(0)
    place = next(
        chunk.dictionary_page_offset + chunk.total_compressed_size // 2
        for chunk in map(chunks.column, range(chunks.num_columns))
        if chunk.path_in_schema == "final_test_accuracy"
    )
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)
    load_labels(LabelConfig())
    with pytest.raises(ValueError, match=f"{path} is damaged; import it again"):
        load_labels(LabelConfig(metric="test_accuracy"))


def test_the_digest_changes_with_everything_that_determines_the_labels_and_with_nothing_else(
    frame: pd.DataFrame, only108: Path, full: Path, tmp_path: Path
) -> None:
    import_release(only108)
    import_release(full)
    table = written(frame, tmp_path / "a.csv")
    frame.loc[3, "validation_accuracy_108"] += 1e-9
    configs = [
        LabelConfig(),
        LabelConfig(repeat=0),
        LabelConfig(repeat=1),
        LabelConfig(epochs=4),
        LabelConfig(metric="test_accuracy"),
        LabelConfig(source=table),
        LabelConfig(source=table, epochs=4),
        LabelConfig(source=written(frame, tmp_path / "b.csv")),
    ]
    digests = [label_digest(config) for config in configs]
    assert len(set(digests)) == len(configs)
    assert [label_digest(config) for config in configs] == digests
    copy = tmp_path / "elsewhere.csv"
    copy.write_bytes(Path(table).read_bytes())
    assert label_digest(LabelConfig(source=str(copy))) == digests[5]
    contents = hashlib.sha256(only108.read_bytes()).hexdigest()
    assert digests[0] == hashlib.sha256(f"{contents} validation_accuracy 108 mean".encode()).hexdigest()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "accuracy"}, "metric is 'accuracy'; it must be one of validation_accuracy, test_accuracy, train_"),
        ({"epochs": 100}, "epochs is 100; it must be one of 4, 12, 36, 108"),
        ({"repeat": 3}, "repeat is '3'; it must be one of mean, 0, 1, 2"),
        ({"repeat": "median"}, "repeat is 'median'; it must be"),
        (
            {"source": "measured"},
            "source is 'measured'; it must be 'official', 'surrogate' or the path of",
        ),
        (
            {"source": "surrogate", "metric": "test_accuracy"},
            "'test_accuracy'; the surrogate predicts validation_accuracy",
        ),
        ({"source": "table.xlsx"}, "source is 'table.xlsx'; it must be"),
        ({"source": ""}, "source is ''; it must be"),
        ({"source": "t.csv", "repeat": 0}, "repeat is '0'; a measured table has one run a cell, so it must be 'mean'"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LabelConfig(**values)


def test_repeats_as_numbers_and_as_text_are_the_same_setting() -> None:
    assert LabelConfig(repeat=2) == LabelConfig(repeat="2")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module_hash": "f" * 32}, "row 4: 'ffffffffffffffffffffffffffffffff' is the module hash of no"),
        ({"module_hash": "again"}, "row 4: '{first}' is the module hash of row 1 already"),
        ({"validation_accuracy_108": 1.5}, "row 4: validation_accuracy_108 is {1.5}; it must be a number in [0, 1]"),
        ({"validation_accuracy_108": -0.25}, "row 4: validation_accuracy_108 is {-0.25}; it must be a number in [0"),
        ({"validation_accuracy_108": float("nan")}, "row 4: validation_accuracy_108 is {}; it must be a number in"),
        ({"validation_accuracy_108": float("inf")}, "row 4: validation_accuracy_108 is {inf}; it must be a number"),
    ],
)
def test_a_bad_row_of_a_measured_table_is_named(
    suffix: str, change: dict[str, Any], message: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    ((column, value),) = change.items()
    first = frame["module_hash"][1]
    frame.loc[4, column] = first if value == "again" else value
    source = written(frame, tmp_path / f"bad{suffix}")
    text = "" if value != value else value  # NaN, an empty field of a CSV
    shown = repr(str(text)) if suffix == ".csv" else rf"(np.float64\()?{value}\)?"
    pattern = re.escape(message.replace("{first}", first))
    pattern = re.sub(r"\\\{.*?\\\}", lambda _: shown, pattern)
    with pytest.raises(ValueError, match=f"{re.escape(source)}: {pattern}"):
        load_labels(LabelConfig(source=source))


def test_a_value_that_is_no_number_and_a_time_that_is_negative_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["validation_accuracy_108"] = frame["validation_accuracy_108"].astype(object)
    frame.loc[2, "validation_accuracy_108"] = "high"
    frame.loc[3, "training_time_108"] = -1.0
    source = written(frame, tmp_path / "bad.csv")
    with pytest.raises(ValueError, match=r"row 2: validation_accuracy_108 is 'high'; it must be a number in \[0, 1\]"):
        load_labels(LabelConfig(source=source))
    with pytest.raises(ValueError, match=r"row 3: training_time_108 is '-1.0'; it must be a number of seconds"):
        load_labels(LabelConfig(source=source, metric="training_time"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(
    suffix: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    source = written(frame, tmp_path / f"t{suffix}")
    there = "there are validation_accuracy_108, validation_accuracy_4, training_time_108"
    with pytest.raises(ValueError, match=f"there is no column test_accuracy_108; of metrics and epochs {there}"):
        load_labels(LabelConfig(source=source, metric="test_accuracy"))
    with pytest.raises(ValueError, match=f"there is no column validation_accuracy_36; of metrics and epochs {there}"):
        load_labels(LabelConfig(source=source, epochs=36))
    nameless = written(frame.rename(columns={"module_hash": "hash"}), tmp_path / f"n{suffix}")
    with pytest.raises(ValueError, match="there is no column module_hash; there are hash, validation_accuracy_108"):
        load_labels(LabelConfig(source=nameless))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_is_absent_empty_or_something_else_is_refused_in_one_line(
    suffix: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    absent = str(tmp_path / f"absent{suffix}")
    for ask in (load_labels, label_digest):
        with pytest.raises(ValueError, match=f"source is '{re.escape(absent)}', where there is no file"):
            ask(LabelConfig(source=absent))
    without_rows = written(frame.iloc[:0], tmp_path / f"rows{suffix}")
    with pytest.raises(ValueError, match="the table has no rows"):
        load_labels(LabelConfig(source=without_rows))
    for content in (b"", b"\x00\x01\x02\xff\n\x03" * 20):
        other = tmp_path / f"other{suffix}"
        other.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"{other}: ")) as caught:
            load_labels(LabelConfig(source=str(other)))
        assert "\n" not in str(caught.value)
