"""What a trial gets of a cluster or of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from study.cluster import memory_of, running_ray
from study.predictor import PredictorTrial
from study.space import Resources
from vsgae.nasbench101.labels import LabelConfig

GIB = 2**30


@pytest.fixture
def _no_real_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is neither started nor joined; the machine has 8 cores and no GPU."""
    monkeypatch.setattr("ray.init", lambda **options: None)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})


@pytest.mark.usefixtures("_no_real_ray")
def test_a_trial_that_does_not_fit_on_this_machine_is_refused_but_a_cluster_may_grow() -> None:
    message = "^a trial needs 1 CPU and 0.5 GPU; here are 8 CPU and 0 GPU$"
    with pytest.raises(ValueError, match=message), running_ray(None, Resources(), 0.5):
        pass
    with running_ray("auto", Resources(), 0.5) as room:
        assert (room.each, room.device) == (Resources(gpus=0.5), "cuda")
        assert room.at_once > 1000
        assert str(room) == "1 CPU and 0.5 GPU a trial; 0 at once on the cluster (8 CPU and 0 GPU now)"
    with running_ray(None, Resources(cpus=2, gpus=0.5), None) as room:
        assert (room.each, room.device, room.at_once) == (Resources(cpus=2), "cpu", 4)
        assert str(room) == "2 CPU and 0 GPU a trial; 4 at once on this machine (8 CPU and 0 GPU)"


@pytest.mark.usefixtures("_no_real_ray")
def test_on_a_cluster_without_a_gpu_now_the_user_says_whether_to_wait_for_one() -> None:
    message = (
        "^no GPU is on the cluster now, and a trial takes 0.25: --gpus-per-trial 0.25 waits .*, .* 0 trains on the CPU$"
    )
    with pytest.raises(ValueError, match=message), running_ray("auto", Resources(gpus=0.25), None):
        pass
    with running_ray("auto", Resources(gpus=0.25), 0) as room:
        assert room.device == "cpu"


def test_what_is_measured_is_the_memory_of_a_first_epoch_and_of_the_process_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (10 * GIB, 16 * GIB))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 5 * GIB)
    monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda: 8 * GIB)
    epochs = []

    def run(directory: Path, device: str) -> Iterator[dict[str, float]]:
        assert (directory.is_dir(), device) == (True, "cuda")
        for epoch in (1, 2):
            epochs.append(epoch)
            yield {"epoch": epoch}

    config = PredictorTrial()
    object.__setattr__(config, "run", run)
    assert memory_of(config) == (8 / 16, 1 / 16)
    assert epochs == [1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "^no Ray cluster answers at 127.0.0.1:9: .*refused"),
        ("somewhere", "^address is 'somewhere'; it must be 'auto' or host:port$"),
        ("ray://somewhere:10001", "^address is 'ray://somewhere:10001'; it must be 'auto' or host:port$"),
    ],
)
def test_an_absent_cluster_and_a_wrong_address_are_refused_at_once(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message), running_ray(address, Resources(), None):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_memory_of_a_small_trial_is_a_small_share_of_a_gpu(small_table: Path) -> None:
    tensors, outside = memory_of(PredictorTrial(labels=LabelConfig(source=str(small_table))))
    assert 0 < tensors < 0.2
    assert 0 < outside < 0.2
