"""The Ray that trials run on, started on this machine or joined, and what a trial gets of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import study
import vsgae
from study.space import Resources
from study.stopping import stoppable
from study.storage import VARIABLE, Place
from study.trial import TrialConfig

UNSHARED = f"{VARIABLE} must name a path that all machines of the cluster share, or a URL such as s3://bucket/folder"
HEADROOM = 1.1  # of the memory that a trial was seen to take


@dataclass(frozen=True)
class Room:
    """What each trial gets of the running Ray.

    Args:
        num_cpus, num_gpus: that Ray has now.
        can_grow: it is a cluster, which more machines may join.
        outside: the share of a GPU's memory that a process takes beside that of its tensors, in [0, 1).
    """

    each: Resources
    num_cpus: float
    num_gpus: float
    can_grow: bool = False
    outside: float = 0.0

    @property
    def device(self) -> str:
        return "cuda" if self.each.gpus else "cpu"

    @property
    def fitting(self) -> int:
        """How many trials run at once now."""
        return self.each.trials_at_once(self.num_cpus, self.num_gpus)

    @property
    def at_once(self) -> int:
        """How many to ask for: a cluster that grows with demand has to see all of it."""
        return sys.maxsize if self.can_grow else self.fitting

    def __str__(self) -> str:
        where = "the cluster" if self.can_grow else "this machine"
        return (
            f"{self.each.cpus:g} CPU and {self.each.gpus:g} GPU a trial; {self.fitting} at once on {where} "
            f"({self.num_cpus:g} CPU and {self.num_gpus:g} GPU{' now' if self.can_grow else ''})"
        )


@contextmanager
def running_ray(address: str | None, resources: Resources, gpus_per_trial: float | None) -> Iterator[Room]:
    """Start Ray on this machine for as long as the context lasts, or join the cluster at ``address``.

    Args:
        resources: the study's.
        gpus_per_trial: in place of its figure.

    Raises:
        ValueError: there is no cluster at ``address``, no room for a trial on this machine, or no GPU on the cluster
            and nobody has said what to do then.
    """
    _silence()
    try:
        if address not in (None, "auto"):
            _reach(address)
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            # a trial's process imports this very code, wherever it is
            runtime_env={"py_modules": [str(Path(str(package.__file__)).parent) for package in (study, vsgae)]},
        )
    except (OSError, AuthenticationError) as error:
        raise ValueError(f"no Ray cluster answers at {address}: {' '.join(str(error).split())}") from None
    try:
        there = ray.cluster_resources()
        num_cpus, num_gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
        if address is not None and gpus_per_trial is None and resources.gpus and not num_gpus:
            raise ValueError(
                f"no GPU is on the cluster now, and a trial takes {resources.gpus:g}: --gpus-per-trial "
                f"{resources.gpus:g} waits for machines that have one, --gpus-per-trial 0 trains on the CPU"
            )
        room = Room(resources.where(num_gpus, gpus_per_trial), num_cpus, num_gpus, can_grow=address is not None)
        if not room.at_once:
            raise ValueError(
                f"a trial needs {room.each.cpus:g} CPU and {room.each.gpus:g} GPU; "
                f"here are {num_cpus:g} CPU and {num_gpus:g} GPU"
            )
        with stoppable():  # again: Ray takes SIGTERM for itself
            yield room
    finally:
        ray.shutdown()


def measured(room: Room, configs: Sequence[TrialConfig]) -> Room:
    """``room`` with as many trials on a GPU as its memory holds of the hungriest of ``configs``.

    Each has a GPU to itself for its first epoch, whose peak counts; what it trained is thrown away.
    """
    probe = ray.remote(num_cpus=room.each.cpus, num_gpus=1, max_calls=1)(memory_of)
    seen = ray.get([probe.remote(config) for config in configs])
    tensors, outside = (max(shares) for shares in zip(*seen, strict=True))
    at_once = max(1, int(1 / (HEADROOM * tensors + outside)))
    each = Resources(cpus=room.each.cpus, gpus=1 / at_once)
    return dataclasses.replace(room, each=each, outside=outside if at_once > 1 else 0.0)


def memory_of(config: TrialConfig) -> tuple[float, float]:
    """What a trial's first epoch takes of the memory of the GPU, which nothing else uses: its tensors' share at the
    peak, and that of the process beside them."""
    torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as directory:
        next(iter(config.run(Path(directory), "cuda")))
    free, total = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_reserved() / total, (total - free - torch.cuda.memory_reserved()) / total


def check_shared(place: Place) -> None:
    """Raise ValueError if a machine of the running Ray does not see a trial's directory. One that joins later finds out
    itself."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if place.url is not None or not others:
        return
    place.directory.mkdir(parents=True, exist_ok=True)
    sees = ray.remote(num_cpus=0)(os.path.isdir)
    there = [
        sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            str(place.directory)
        )
        for node in others
    ]
    unshared = [node["NodeManagerHostname"] for node, shared in zip(others, ray.get(there), strict=True) if not shared]
    if unshared:
        raise ValueError(f"{place.directory} is not there on {', '.join(sorted(set(unshared)))}; {UNSHARED}")


def _reach(address: str) -> None:
    """Knock at a cluster's door, since Ray waits there for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not port.isdecimal():
        raise ValueError(f"address is {address!r}; it must be 'auto' or host:port")
    socket.create_connection((host, int(port)), timeout=20).close()


def _silence() -> None:
    """One line an event is ours; Ray's own tables, logs and result files are not wanted. Set by the user, they stay."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the study at once; it can go on later
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
