"""`ray up` over SSH: cluster/local.yaml on two hosts in namespaces of their own, made by hosts.sh on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drivers import PROJECT, all_runs

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "ss", "unshare", "nsenter")
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PYTHON = Path(sys.base_prefix, "bin")  # of the hosts; the tests' virtual environment may be of this host only
SSH = ("ssh", "-q", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
RAY = "pgrep --exact raylet; pgrep --exact gcs_server"
HEAD, WORKER = "10.0.0.1", "10.0.0.2"


class Hosts:
    """Two hosts, and a client of them that has a home of its own.

    Args:
        folder: what hosts.sh was given.
        network: the process whose network it is.
    """

    def __init__(self, folder: Path, network: int) -> None:
        self._folder, self._network = folder, network
        self._config = folder / "local.yaml"
        text = (PROJECT / "cluster" / "local.yaml").read_text()
        for of_the_file, ours in {
            "head_ip: 192.0.2.1": f"head_ip: {HEAD}",
            "worker_ips: [192.0.2.2, 192.0.2.3]": f"worker_ips: [{WORKER}]",
            "ssh_user: ubuntu": "ssh_user: root",
            "~/.ssh/id_ed25519": str(folder / "key"),
            "/shared/vsgae": str(folder / "shared"),
        }.items():
            assert of_the_file in text
            text = text.replace(of_the_file, ours)
        self._config.write_text(text)

    def client(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        client = str(self._folder / "client")
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self._network}/ns/net", *command],
            cwd=PROJECT,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": client,
                "RAY_TMPDIR": client,
                "TMPDIR": client,
                "RAY_USAGE_STATS_ENABLED": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    def ray(self, command: str, *arguments: str | Path) -> str:
        done = self.client("ray", command, self._config, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def on(self, host: str, command: str) -> str:
        """What ``command`` prints there, whatever its exit code."""
        return self.client(*SSH, "-i", self._folder / "key", f"root@{host}", command).stdout


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    if os.geteuid() or subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, and the right to make namespaces")
    for name in ("home", "1", "2", "client", "shared"):
        (tmp_path / name).mkdir()
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    wheels = tmp_path / "wheels"  # the hosts reach no registry
    download = [sys.executable, "-m", "pip", "download", "--quiet", "-c", "constraints.txt", "--dest", wheels]
    subprocess.run([*download, ".[cluster]", "setuptools", "wheel"], cwd=PROJECT, check=True)
    for home in (tmp_path / "1", tmp_path / "2"):
        (home / ".bashrc").touch()
        (home / ".profile").write_text(
            f"export PATH=$HOME/.local/bin:{PYTHON}:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels}\n"
        )
    script = PROJECT / "tests" / "cluster" / "hosts.sh"
    process = subprocess.Popen([*NAMESPACES, script, tmp_path, "2"])
    try:
        own_network = Path("/proc/self/ns/net").readlink()
        _wait_until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own_network)
        hosts = Hosts(tmp_path, process.pid)
        _wait_until(lambda: "ready" in hosts.on(WORKER, "echo ready") and "ready" in hosts.on(HEAD, "echo ready"))
        yield hosts
    finally:
        process.kill()
        process.wait()


def test_table1_runs_on_machines_that_ray_up_made_a_cluster_of(
    hosts: Hosts, small_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = shutil.copy(small_table, tmp_path)  # where the hosts see it
    activate = "cd vsgae-study && . .venv/bin/activate"
    study = f"python -m study.run table1 --set training.epochs=3 --data {table} --address auto --gpus-per-trial 0"

    assert hosts.client("ray", "get-auth-token", "--generate").returncode == 0
    hosts.ray("up", "-y")
    _wait_until(lambda: "2 local.cluster.node" in hosts.on(HEAD, f"{activate} && ray status"))
    assert "AuthenticationError" in hosts.on(HEAD, "vsgae-study/.venv/bin/ray status")  # without the token
    assert "127.0.0.1:8265" in hosts.on(HEAD, "ss --listening --tcp --numeric --no-header 'sport = 8265'")

    refused = hosts.ray("exec", f"{activate} && ! VSGAE_STORAGE=runs {study}")
    assert "runs/table1/" in refused
    assert "is not there on host2; VSGAE_STORAGE must name a path that all machines" in refused
    assert "started" not in refused

    hosts.ray("exec", f"{activate} && {study}")
    monkeypatch.chdir(tmp_path)
    hosts.ray("rsync-down", "vsgae-study/mlflow.db", tmp_path / "mlflow.db")
    hosts.ray("rsync-down", "vsgae-study/results/", tmp_path / "results/")
    assert [run.info.status for run in all_runs("table1")] == ["FINISHED"] * 15
    assert "VS-GAE" in (tmp_path / "results" / "table1.md").read_text()
    assert list((tmp_path / "shared" / "table1").iterdir()) == []

    hosts.ray("down", "-y")
    _wait_until(lambda: hosts.on(HEAD, RAY) == hosts.on(WORKER, RAY) == "")  # a worker's ends a while after its head's


def _wait_until(condition: Callable[[], object]) -> None:
    for _ in range(240):
        if condition():
            return
        time.sleep(1)
    raise AssertionError("nothing came of it in four minutes")
