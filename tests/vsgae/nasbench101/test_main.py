import os
import subprocess
import sys
from pathlib import Path

import pytest

from vsgae.nasbench101.__main__ import main
from vsgae.nasbench101.release import Release

pytestmark = pytest.mark.usefixtures("own_cache")


def test_enumerate_prints_the_counts_per_length_and_in_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enumerate"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[-2]) for line in lines] == [
        ("2", "1"),
        ("3", "6"),
        ("4", "84"),
        ("5", "2,441"),
        ("6", "62,010"),
        ("7", "359,082"),
        ("in", "423,624"),
    ]


def test_import_prints_what_was_imported(only108: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["import", str(only108)]) == 0
        out = capsys.readouterr().out
        assert out.startswith("only108: 45 records of 15 of 423,624 cells in ")
        assert str(own_cache) in out


def test_a_bad_file_is_one_line_and_exit_code_2(
    only108: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only108.write_bytes(only108.read_bytes()[:-1])
    for path, fault in ((only108, "record 45, at byte "), (tmp_path / "absent", "absent"), (tmp_path, "irectory")):
        assert main(["import", str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert fault in captured.err


def test_offline_a_download_is_one_line_and_exit_code_1_and_leaves_nothing(own_cache: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    done = subprocess.run(
        [sys.executable, "-m", "vsgae.nasbench101", "download"],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "error: cannot download https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord: "
    )
    assert done.stderr.count("\n") == 1
    assert [path.suffix for path in own_cache.iterdir()] == [".parquet"]


@pytest.mark.parametrize(("arguments", "kind"), [([], "only108"), (["--kind", "full"], "full")])
def test_download_fetches_the_kind_that_is_asked_for(
    arguments: list[str], kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vsgae.nasbench101.release.download", lambda kind: Release(kind, Path("there"), 2, "digest"))
    assert main(["download", *arguments]) == 0
    records = {"only108": "6", "full": "24"}[kind]
    assert capsys.readouterr().out == f"{kind}: {records} records of 2 of 423,624 cells in there\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["import"]])
def test_bad_arguments_are_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m vsgae.nasbench101" in capsys.readouterr().err


def test_an_unknown_kind_is_quoted_and_exit_code_2(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "--kind", "only12"]) == 2
    assert capsys.readouterr() == ("", "error: kind is 'only12'; it must be only108 or full\n")
