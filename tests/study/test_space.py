from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import pytest
import yaml

from study.predictor import PredictorTrial
from study.settings import flatten
from study.space import Configuration, Resources, Study, load_study, plan_trials, study_files
from study.trial import trial_key
from vsgae.modules import AGGREGATIONS, MESSAGES, READOUTS, UPDATES
from vsgae.sampling import SAMPLING_METHODS


def test_table1_is_three_tasks_with_five_repeats_of_the_papers_configuration(small_table: Path) -> None:
    study = load_study("table1")
    trials = plan_trials(study, {}, str(small_table))
    assert [trial.name for trial in trials] == [
        f"{task}/seed={seed}" for task in ("prediction", "zero-shot-6", "zero-shot-7") for seed in range(5)
    ]
    assert [trial.index for trial in trials] == list(range(15))
    assert len({trial.key for trial in trials}) == 15
    assert {trial.setting for trial in trials} == {"paper"}
    for trial in trials:
        encoder, training = trial.config.model.encoder, trial.config.training
        assert (encoder.node_dim, encoder.graph_dim, encoder.rounds) == (250, 56, 2)
        assert trial.config.model.hidden == (28, 14, 7)
        assert (training.lr, training.batch_size, training.epochs, training.loss) == (1e-5, 128, 50, "mse")
        assert trial.config.split.seed == 0
    assert [trial.config.split.name for trial in trials[::5]] == ["edit_sampled", "zero_shot_6", "zero_shot_7"]


@pytest.mark.parametrize("name", sorted(study_files()))
def test_every_study_of_the_project_can_be_planned(name: str, small_table: Path) -> None:
    study = load_study(name)
    source = str(small_table) if study.trains == "predictor" else None
    assert len(plan_trials(study, {}, source)) == len(study.expanded) * study.repeats
    assert {trial.setting for trial in plan_trials(study, {}, source)} == {study.setting}
    assert plan_trials(study, study.local, source)


def test_sampling_is_every_method_and_share_with_five_repeats_of_the_papers_configuration(
    small_table: Path, shipped_autoencoder: Path
) -> None:
    trials = plan_trials(load_study("sampling"), {}, str(small_table))
    samplings = [trial.config.sampling for trial in trials[::5]]
    shares = [0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [(each.method, each.share) for each in samplings] == list(itertools.product(SAMPLING_METHODS, shares))
    assert len({trial.key for trial in trials}) == 325
    assert [trial.name for trial in trials[:6:5]] == ["length 1 %/seed=0", "length 2 %/seed=0"]
    paper = PredictorTrial().training
    for trial in trials:
        assert trial.config.training == dataclasses.replace(paper, epochs=100)
        assert trial.config.model == PredictorTrial().model
        assert trial.config.sampling.latents == "shipped"


def test_label_efficiency_is_eight_budgets_without_validation_cells_from_scratch_and_pretrained(
    small_table: Path,
) -> None:
    study = load_study("label_efficiency")
    trials = plan_trials(study, {}, str(small_table))
    assert len({trial.key for trial in trials}) == 2 * 8 * 10
    assert study.columns == ["16", "32", "64", "128", "256", "512", "1 %", "5 %"]
    assert [trial.configuration for trial in trials[:160:80]] == ["from scratch 16", "pretrained 16"]
    budgets = [(trial.config.sampling.size, trial.config.sampling.share) for trial in trials[:80:10]]
    assert budgets == [(2**i, 1.0) for i in range(4, 10)] + [(None, 0.01), (None, 0.05)]
    for scratch, pretrained in zip(trials[:80], trials[80:], strict=True):
        assert (scratch.config.pretrained, pretrained.config.pretrained) == ("none", "shipped")
        assert dataclasses.replace(pretrained.config, pretrained="none") == scratch.config
        assert (scratch.config.split.name, scratch.config.training.select) == ("rest", "last")
        assert (scratch.config.labels.metric, scratch.config.sampling.method) == ("validation_accuracy", "uniform")


def test_a_published_figure_has_a_row_of_its_own_in_one_of_the_studys_columns() -> None:
    study = load_study("label_efficiency")
    assert study.place("pretrained 1 %") == ("pretrained", "1 %")
    assert study.place("FLAN with zero-cost scores 16") == ("FLAN with zero-cost scores", "16")
    assert study.place("FLAN 17") == ("", "")
    assert load_study("table1").place("zero-shot-6") == ("", "zero-shot-6")


def test_a_grid_is_every_configuration_with_every_combination_of_its_values(study_folder: Path) -> None:
    content = yaml.safe_load(Path("search_spaces/small.yaml").read_text())
    content["configurations"] = {"seen": {}, "unseen": {"split": {"name": "zero_shot_6"}}}
    content["grid"] = {
        "training.loss": ["mse", "huber"],
        "effort": {"little": {"training.epochs": 1, "model": {"hidden": [2]}}, "more": {"training": {"epochs": 2}}},
    }
    Path("gridded.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    expanded = load_study("gridded.yaml").expanded
    assert list(expanded) == [
        f"{task} {loss} {effort}"
        for task in ("seen", "unseen")
        for loss in ("mse", "huber")
        for effort in ("little", "more")
    ]
    assert expanded["unseen huber little"] == Configuration(
        row="unseen huber",
        column="little",
        settings={
            "split": {"name": "zero_shot_6"},
            "training": {"loss": "huber", "epochs": 1},
            "model": {"hidden": [2]},
        },
    )


def test_a_grid_of_one_setting_needs_no_configurations(study_folder: Path, small_table: Path) -> None:
    content = yaml.safe_load(Path("search_spaces/small.yaml").read_text())
    del content["configurations"]
    Path("gridded.yaml").write_text(yaml.safe_dump({**content, "grid": {"training.lr": [0.1, 0.01]}}))
    trials = plan_trials(load_study("gridded.yaml"), {}, str(small_table))
    assert [(trial.name, trial.config.training.lr) for trial in trials] == [
        ("0.1/seed=0", 0.1),
        ("0.1/seed=1", 0.1),
        ("0.01/seed=0", 0.01),
        ("0.01/seed=1", 0.01),
    ]


def test_table2_is_two_readings_with_five_repeats_of_the_papers_configuration() -> None:
    study = load_study("table2")
    trials = plan_trials(study, {})
    assert [trial.name for trial in trials[::5]] == ["text/seed=0", "published code/seed=0"]
    text, code = (trial.config for trial in trials[::5])
    assert text == type(text)()  # the defaults are the text
    assert (text.model.encoder.node_dim, text.model.encoder.graph_dim, text.model.alpha) == (250, 56, 0.005)
    assert (text.training.lr, text.training.batch_size, text.training.epochs) == (1e-4, 128, 300)
    assert (code.model.kl_reduction, code.model.noise) == ("sum", 0.01)
    changed = {name for name, value in vars(code.model.decoder).items() if value != getattr(text.model.decoder, name)}
    assert changed == {"edge_loss", "first_edge", "init_node_readout", "single_node"}
    assert (code.training, code.evaluation, code.split) == (text.training, text.evaluation, text.split)


def test_the_ablation_changes_one_setting_of_the_papers_configuration_in_each_row(small_table: Path) -> None:
    rows = changes(load_study("ablation"), small_table)
    assert rows.pop("paper") == {}
    assert len(rows) == 29
    assert all(len(changed) == 1 for changed in rows.values())
    assert rows["update lstm"] == {"model.encoder.update": "lstm"}
    tried = {name: {changed.get(name) for changed in rows.values()} for row in rows.values() for name in row}
    paper = flatten(PredictorTrial().settings())
    for name, registry in (
        ("message", MESSAGES),
        ("update", UPDATES),
        ("aggregation", AGGREGATIONS),
        ("readout", READOUTS),
    ):
        assert tried[f"model.encoder.{name}"] == {*registry, None} - {paper[f"model.encoder.{name}"]}


def test_the_reduced_ablation_has_the_rows_of_the_ablation(small_table: Path) -> None:
    whole, reduced = load_study("ablation"), load_study("ablation_reduced")
    assert list(reduced.configurations) == list(whole.configurations)
    assert (reduced.repeats, reduced.resources) == (whole.repeats, whole.resources)
    assert len(plan_trials(reduced, {}, str(small_table))) == 450
    rows, whole_rows = changes(reduced, small_table), changes(whole, small_table)
    assert {name for name in rows if rows[name] != whole_rows[name]} == {"node_dim / 4", "node_dim / 2", "node_dim x 2"}


def changes(study: Study, small_table: Path) -> dict[str, dict[str, object]]:
    """By row what the study's trials have other than those of its first row."""
    trials = plan_trials(study, {}, str(small_table))
    columns = len(study.expanded) // len(study.configurations)
    first, *others = (flatten(trial.config.settings()) for trial in trials[:: study.repeats * columns])
    named = zip(study.configurations, (first, *others), strict=True)
    return {row: {name: value for name, value in own.items() if value != first[name]} for row, own in named}


def test_the_ablation_of_the_autoencoder_changes_one_setting_in_each_row_beside_the_published_code() -> None:
    study = load_study("ablation_autoencoder")
    text, code, *others = (flatten(trial.config.settings()) for trial in plan_trials(study, {})[:: study.repeats])
    changed = [{name: value for name, value in own.items() if value != text[name]} for own in others]
    assert all(len(row) == 1 for row in changed)
    merged = {name: value for row in changed[:6] for name, value in row.items()}
    assert {**text, **merged} == code
    assert [row.get("model.alpha") for row in changed[6:9]] == [0.0005, 0.05, 0.5]
    assert [row.get("model.encoder.graph_dim") for row in changed[9:]] == [8, 16, 32, 112]


def test_a_study_like_another_says_only_in_what_it_differs(study_folder: Path) -> None:
    content = {
        "like": "small",
        "setting": "huber",
        "base": {"training.loss": "huber", "model": {"encoder": {"rounds": 2}}},
        "configurations": {"zero-shot-6": {"split": {"name": "zero_shot_6", "seed": 1}}, "random": {"split.seed": 2}},
    }
    Path("search_spaces/other.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    small, other = load_study("small"), load_study("other")
    assert (other.name, other.setting, other.description) == ("other", "huber", small.description)
    assert other.base == {
        "model": {"encoder": {"node_dim": 6, "graph_dim": 4, "rounds": 2}, "hidden": [3]},
        "training": {"lr": 0.01, "batch_size": 32, "epochs": 3, "loss": "huber"},
    }
    assert list(other.configurations) == ["prediction", "zero-shot-6", "zero-shot-7", "random"]
    assert other.configurations["zero-shot-6"] == content["configurations"]["zero-shot-6"]
    assert other.configurations["zero-shot-7"] == small.configurations["zero-shot-7"]

    Path("third.yaml").write_text("like: other")
    with pytest.raises(ValueError, match=r"^third\.yaml: like: other is itself like another study$"):
        load_study("third.yaml")
    Path("third.yaml").write_text("like: [small]")
    with pytest.raises(ValueError, match=r"^third\.yaml: like: unknown study \"\['small'\]\"; there are: "):
        load_study("third.yaml")
    Path("third.yaml").write_text("{like: small, base: 3}")
    with pytest.raises(ValueError, match=r"^third\.yaml: base is 3; it must be a group of settings$"):
        load_study("third.yaml")


def test_what_is_wrong_in_local_is_found_without_it(study_folder: Path, small_table: Path) -> None:
    study = dataclasses.replace(load_study("small"), local={"training": {"lrr": 1}})
    with pytest.raises(ValueError, match=r"^local of small: unknown setting training\.lrr"):
        plan_trials(study, {}, str(small_table))


def test_a_study_without_labels_takes_none(small_table: Path) -> None:
    with pytest.raises(ValueError, match=r"^table2 needs no labels; it takes no --data .*invented\.csv$"):
        plan_trials(load_study("table2"), {}, str(small_table))


def test_overrides_make_a_setting_named_after_what_they_change(study_folder: Path, small_table: Path) -> None:
    study = load_study("small")
    changed = plan_trials(study, {"training": {"lr": "1e-3"}, "training.loss": "huber"}, str(small_table))
    assert {trial.setting for trial in changed} == {"training.loss=huber training.lr=0.001"}
    assert changed[0].name == "prediction/seed=0 training.loss=huber training.lr=0.001"
    assert {trial.key for trial in changed}.isdisjoint(trial.key for trial in plan_trials(study, {}, str(small_table)))
    again = plan_trials(study, changed[0].overrides, str(small_table))
    assert again == changed


def test_an_override_with_the_studys_own_value_is_no_other_setting(study_folder: Path, small_table: Path) -> None:
    study = load_study("small")
    same = plan_trials(study, {"training.lr": "1e-2", "model.hidden": [3]}, str(small_table))
    assert same == plan_trials(study, {}, str(small_table))
    assert {trial.setting for trial in same} == {"small"}


def test_overrides_that_make_two_trials_the_same_are_refused(study_folder: Path, small_table: Path) -> None:
    with pytest.raises(ValueError, match=r"prediction/seed=0 .* and zero-shot-6/seed=0 .* would be the same trial"):
        plan_trials(load_study("small"), {"split.name": "edit_sampled"}, str(small_table))
    with pytest.raises(ValueError, match="seed is set by the study's repeats"):
        plan_trials(load_study("small"), {"seed": 3}, str(small_table))


def test_the_same_table_elsewhere_is_the_same_trial_and_another_table_another(
    study_folder: Path, small_table: Path
) -> None:
    study = load_study("small")
    keys = [trial.key for trial in plan_trials(study, {}, str(small_table))]
    shutil.copy(small_table, "copy.csv")
    assert [trial.key for trial in plan_trials(study, {}, "copy.csv")] == keys
    Path("less.csv").write_text("".join(small_table.read_text().splitlines(keepends=True)[:-1]))
    assert {trial.key for trial in plan_trials(study, {}, "less.csv")}.isdisjoint(keys)


def test_the_labels_of_a_plan_have_an_absolute_path(study_folder: Path, small_table: Path) -> None:
    shutil.copy(small_table, "copy.csv")
    (trial, *_) = plan_trials(load_study("small"), {}, "copy.csv")
    assert trial.config.labels.source == str(study_folder / "copy.csv")
    assert trial.place.directory == study_folder / "runs" / "small" / trial.key


def test_a_key_depends_on_every_setting_the_seed_and_the_labels(study_folder: Path, small_table: Path) -> None:
    config = plan_trials(load_study("small"), {}, str(small_table))[0].config
    key = trial_key(config, "digest")
    assert len(key) == 16
    assert trial_key(dataclasses.replace(config, seed=1), "digest") != key
    assert trial_key(dataclasses.replace(config, labels=dataclasses.replace(config.labels, epochs=36)), "digest") != key
    assert trial_key(config, "another digest") != key


def test_the_seeds_of_repeats_begin_with_the_first_seed(study_folder: Path, small_table: Path) -> None:
    study = dataclasses.replace(load_study("table1"), first_seed=7, repeats=2)
    trials = plan_trials(study, {}, str(small_table))
    assert [trial.config.seed for trial in trials] == [7, 8] * 3


def test_an_unknown_study_is_an_error_that_names_the_known_ones(study_folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^unknown study 'nonsense'; there are: ablation, ablation_autoencoder, ablation_reduced, al"
    ):
        load_study("nonsense")
    with pytest.raises(ValueError, match=r"^there is no file nonsense\.yaml$"):
        load_study("nonsense.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeat": 3}, "unknown setting repeat; there are name, description"),
        ({"repeats": 0}, "repeats is 0; it must be at least 1"),
        ({"configurations": {}}, "configurations is empty; a study has at least one, a grid, or a search"),
        ({"grid": {"training.lr": []}}, "grid.training.lr is empty; it must have a value"),
        ({"grid": {"training.lr": 3}}, "grid.training.lr"),
        (
            {"compare": {"measure": "rmse", "reference": "a"}},
            "compare.measure is 'rmse'; allowed are test_rmse, best_v",
        ),
        (
            {"compare": {"measure": "test_rmse", "reference": "paper"}},
            "compare.reference is 'paper'; allowed are prediction, zero-shot-6, zero-shot-7",
        ),
        ({"stability": "rmse"}, "stability is 'rmse'; allowed are test_rmse, best_validation_rmse"),
        ({"measures": ["tau"]}, "measures has 'tau'; allowed are test_rmse, best_validation_rmse"),
        ({"first_seed": -1}, "first_seed is -1; it must be at least 0"),
        ({"trains": "both"}, "trains is 'both'; allowed are predictor, autoencoder"),
        ({"resources": {"cpus": 0}}, "resources: cpus is 0.0; it must be above 0"),
        ({"resources": {"gpus": 1.5}}, "resources: gpus is 1.5; it must be between 0 and 1, or a whole number"),
    ],
)
def test_a_wrong_study_file_is_an_error_that_names_file_and_setting(
    change: dict[str, object], message: str, study_folder: Path
) -> None:
    content = yaml.safe_load(Path("search_spaces/small.yaml").read_text())
    Path("wrong.yaml").write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(ValueError, match=f"^wrong.yaml: {message}"):
        load_study("wrong.yaml")


def test_what_is_no_yaml_or_no_settings_is_an_error_in_one_line(study_folder: Path) -> None:
    for content in ("a: [1", "just a word"):
        Path("wrong.yaml").write_text(content)
        with pytest.raises(ValueError, match=r"^wrong\.yaml (is not YAML|must hold settings)[^\n]*$"):
            load_study("wrong.yaml")


def test_trials_share_a_gpu_where_there_is_one() -> None:
    resources = Resources(cpus=1, gpus=0.25)
    assert resources.where(0, None) == Resources(cpus=1, gpus=0)
    assert resources.where(2, None) == resources
    assert resources.where(2, 0.5) == Resources(cpus=1, gpus=0.5)
    assert resources.trials_at_once(16, 2) == 8
    assert Resources(cpus=1, gpus=0.3).trials_at_once(16, 2) == 6
    assert Resources(cpus=1, gpus=2).trials_at_once(16, 5) == 2
    assert Resources(cpus=3).trials_at_once(8, 0) == 2
    assert resources.trials_at_once(3, 2) == 3
    with pytest.raises(ValueError, match=r"gpus is 1\.5"):
        resources.where(2, 1.5)
