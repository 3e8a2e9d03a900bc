"""Where trials are put, and what they get, on a cluster of a node with a GPU and one without. The GPU is declared to
Ray; nothing computes on it."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
import torch
from drivers import all_runs
from ray import cloudpickle, tune
from ray.cluster_utils import Cluster

from study.cluster import Room, check_shared, measured, running_ray
from study.predictor import PredictorTrial
from study.run import main
from study.space import Resources, Trial
from study.storage import Place
from study.tracking import Tracker
from study.trial import TrialConfig
from study.tune import run_trials

pytestmark = pytest.mark.cluster


@dataclass(frozen=True, kw_only=True)
class Placed(PredictorTrial):
    """A trial that trains nothing: it leaves a line in ``log``, the node and its share of a GPU.

    Args:
        needs: the least share of a GPU with which it does not run out of memory.
        beside: so many trials run at once before it ends.
    """

    log: Path = Path()
    needs: float = 0.0
    beside: int = 1

    def run(self, directory: Path, device: str = "cpu") -> Iterator[dict[str, float]]:
        gpus = tune.get_context().get_trial_resources().required_resources.get("GPU", 0.0)
        with self.log.open("a") as log:
            log.write(f"{ray.get_runtime_context().get_node_id()} {gpus:g} {device}\n")
        if gpus < self.needs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        while len(self.log.read_text().splitlines()) < self.beside:
            time.sleep(0.1)
        yield {"epoch": 1, "train_loss": 1.0}
        for name in self.FILES:
            (directory / name).touch()
        yield {"test_rmse": 1.0, "test_rmse_ratio": 1.0, "test_kendall_tau": 0.0, "best_epoch": 1.0}


@pytest.fixture
def nodes(cluster: Cluster) -> Mapping[str, str]:
    """The identifiers of a node with a GPU and of one without."""
    return {
        "gpu": cluster.add_node(num_cpus=4, num_gpus=1).node_id,
        "cpu": cluster.add_node(num_cpus=4).node_id,
    }


@pytest.fixture(autouse=True)
def _known_to_workers() -> Iterator[None]:
    """They import nothing of this file."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def run(configs: list[Placed], room: Room) -> list[list[str]]:
    """The lines that the trials left: node, share and device."""
    trials = [
        Trial(
            index=index,
            study="placed",
            configuration=str(index),
            setting="placed",
            overrides={},
            config=config,
            key=str(index),
            data_digest="none",
        )
        for index, config in enumerate(configs)
    ]
    run_trials(trials, Tracker("placed"), room)
    assert [run.info.status for run in all_runs("placed")] == ["FINISHED"] * len(trials)
    return [line.split() for line in configs[0].log.read_text().splitlines()]


def test_trials_without_a_gpu_use_the_node_without_one_too(
    cluster: Cluster, nodes: Mapping[str, str], tmp_path: Path
) -> None:
    with running_ray(cluster.address, Resources(gpus=0.5), 0) as room:
        assert room.fitting == 8
        placed = run([Placed(seed=seed, log=tmp_path / "log", beside=8) for seed in range(8)], room)
    assert Counter(node for node, *_ in placed) == {nodes["gpu"]: 4, nodes["cpu"]: 4}
    assert [rest for _, *rest in placed] == [["0", "cpu"]] * 8


def test_a_trial_that_runs_out_of_a_gpus_memory_gets_more_of_it(
    cluster: Cluster, nodes: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_ray(cluster.address, Resources(gpus=0.25), None) as room:
        assert room.device == "cuda"
        placed = run([Placed(log=tmp_path / "log", needs=0.8)], room)
    assert placed == [[nodes["gpu"], share, "cuda"] for share in ("0.25", "0.5", "1")]
    output = capsys.readouterr().out
    assert "OutOfMemoryError: CUDA out of memory; it is tried again with 0.5 of a GPU" in output
    assert "OutOfMemoryError: CUDA out of memory; it is tried again with 1 of a GPU" in output


def test_as_many_trials_share_a_gpu_as_were_measured_to_fit(
    cluster: Cluster, nodes: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory_of(config: TrialConfig) -> tuple[float, float]:
        assert ray.get_runtime_context().get_node_id() == nodes["gpu"]
        return {0: (0.1, 0.05), 1: (0.2, 0.04)}[config.seed]

    monkeypatch.setattr("study.cluster.memory_of", memory_of)
    with running_ray(cluster.address, Resources(), 1.0) as whole:
        room = measured(whole, [Placed(seed=0), Placed(seed=1)])
    assert room.each == Resources(gpus=1 / 3)  # 1.1 x 0.2 + 0.05 = 0.27
    assert room.outside == 0.05
    assert room.fitting == 3


def test_a_plan_of_a_cluster_counts_its_machines(
    cluster: Cluster, nodes: Mapping[str, str], small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("search_spaces").mkdir()
    Path("search_spaces", "one.yaml").write_text(
        "description: One\nconfigurations: {one: {}}\nresources: {gpus: 0.25}\n"
    )
    command = ["one", "--data", str(small_table), "--plan"]
    assert main([*command, "--address", cluster.address]) == 0
    assert "1 CPU and 0.25 GPU a trial; 4 at once on the cluster (8 CPU and 1 GPU now)" in capsys.readouterr().out
    assert main([*command, "--address", cluster.address, "--gpus-per-trial", "measured"]) == 0
    assert "1 CPU and 1 GPU a trial; 1 at once" in capsys.readouterr().out


def test_a_folder_that_another_node_does_not_see_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    folder = os.open(tmp_path, os.O_RDONLY)
    seen_here_only = Path(f"/proc/self/fd/{folder}/trial")  # a path by a number of this process
    with running_ray(cluster.address, Resources(), 0):
        check_shared(Place(tmp_path / "trial"))
        with pytest.raises(ValueError, match=f"^{seen_here_only} is not there on .*; VSGAE_STORAGE must name a path"):
            check_shared(Place(seen_here_only))
    assert (tmp_path / "trial").is_dir()
    os.close(folder)
