"""A study on a Ray cluster of several nodes, one of which is lost. All nodes are on this machine, in processes of their
own, and share its disk."""

from __future__ import annotations

import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from drivers import all_runs, client, finish, in_the_middle, start, steps, wait_until
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.cluster

EPOCHS = 40
STUDY = f"""\
description: Twelve trials, small in every way
base:
  model: {{encoder: {{node_dim: 6, graph_dim: 4, rounds: 1}}, hidden: [3]}}
  training: {{lr: 0.01, batch_size: 4, epochs: {EPOCHS}}}
configurations:
  prediction: {{}}
repeats: 12
"""


def test_trials_of_a_lost_node_go_on_elsewhere_and_every_epoch_is_recorded_once(
    cluster: Cluster, small_table: Path
) -> None:
    Path("search_spaces").mkdir()
    Path("search_spaces", "twelve.yaml").write_text(STUDY)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    driver = start(
        [sys.executable, "-m", "study.run", "twelve", "--data", str(small_table), "--address", cluster.address]
    )
    wait_until(lambda: len(in_the_middle("twelve")) == 3, driver)
    cluster.remove_node(nodes[0], allow_graceful=False)
    time.sleep(5)
    cluster.add_node(num_cpus=1)

    code, output, error = finish(driver)
    assert code == 0, output + error
    runs = all_runs("twelve")
    assert Counter(run.info.status for run in runs) == {"FINISHED": 12}
    assert len({run.data.tags["trial_key"] for run in runs}) == 12
    for run in runs:
        assert steps(run, "train_loss") == list(range(1, EPOCHS + 1))
    [lost] = [run for run in runs if run.data.tags["attempt"] != "1"]
    assert f"{lost.info.run_name}: its process died (killed, or out of memory); it is tried again" in output
    assert f"{lost.info.run_name}: goes on after epoch" in output
    seconds = client().get_metric_history(lost.info.run_id, "seconds")
    assert all(later.timestamp >= earlier.timestamp for earlier, later in pairwise(seconds))
