import random
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from vsgae.nasbench101.cache import cache_directory, cache_path, read_table, write_table


def table_of(rows: int) -> pa.Table:
    """A little of everything, with metadata of its own."""
    table = pa.table({"number": list(range(rows)), "name": [f"{row:032x}" for row in range(rows)]})
    return table.replace_schema_metadata({"digest": "abc"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "thing-v3.parquet"


def test_the_directory_is_ours_else_the_desktops_else_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "common"))
    monkeypatch.setenv("VSGAE_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.setenv("VSGAE_CACHE", "~/own")
    assert cache_directory() == tmp_path / "home" / "own"
    monkeypatch.delenv("VSGAE_CACHE")
    assert cache_directory() == tmp_path / "common" / "vsgae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == tmp_path / "home" / ".cache" / "vsgae"
    assert cache_directory().is_dir()
    assert cache_path("thing", 3) == cache_directory() / "thing-v3.parquet"


def test_what_is_written_is_read_with_its_metadata(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_table(path, table_of(100), 3)
    table = read_table(path, 3)
    assert table == table_of(100)
    assert table.schema.metadata[b"digest"] == b"abc"
    assert not caplog.records


def test_columns_can_be_chosen_down_to_none_but_the_metadata(path: Path) -> None:
    write_table(path, table_of(100), 3)
    assert read_table(path, 3, ["name"]) == table_of(100).select(["name"])
    table = read_table(path, 3, [])
    assert table.column_names == []
    assert table.schema.metadata[b"digest"] == b"abc"


def test_an_absent_file_is_no_cause_for_a_word(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_table(path, 3) is None
    assert not caplog.records


def test_another_version_is_told_in_one_line(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_table(path, table_of(1), 2)
    assert read_table(path, 3) is None
    assert caplog.messages == [f"The cached file {path} has version 2, not 3: it will be built again."]


def test_a_parquet_file_of_somebody_else_has_no_version(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    pa.parquet.write_table(table_of(1), path)
    assert read_table(path, 3) is None
    assert "has version none, not 3" in caplog.text


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_told_in_one_line(path: Path, kept: float, caplog: pytest.LogCaptureFixture) -> None:
    write_table(path, table_of(1000), 3)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert read_table(path, 3) is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"The cached file {path} is damaged (")
    assert "\n" not in caplog.messages[0]


def test_no_flipped_bit_ever_gives_other_values(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_table(path, table_of(1000), 3)
    content = path.read_bytes()
    rng = random.Random(0)
    noticed = 0
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        table = read_table(path, 3)
        assert table is None or table == table_of(1000)
        noticed += table is None
    assert noticed == len(caplog.messages) > 400  # the others hit names and statistics that are not used


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(path, table_of(10), 3)

    def half_written(table: pa.Table, where: Path, **options: object) -> None:
        Path(where).write_bytes(b"PAR1")
        raise OSError("No space left on device")

    monkeypatch.setattr("vsgae.nasbench101.cache.parquet.write_table", half_written)
    with pytest.raises(OSError, match="No space left"):
        write_table(path, table_of(20), 3)
    assert read_table(path, 3) == table_of(10)
    assert list(path.parent.iterdir()) == [path]


def test_readers_beside_several_writers_always_find_one_whole_table(path: Path) -> None:
    write_table(path, table_of(1), 3)
    found: list[pa.Table | None] = []
    writers = [
        threading.Thread(target=lambda rows=rows: [write_table(path, table_of(rows), 3) for _ in range(20)])
        for rows in (1, 500, 5000)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found.append(read_table(path, 3))
    for writer in writers:
        writer.join()
    assert found
    assert all(table is not None and table == table_of(len(table)) for table in found)
    assert list(path.parent.iterdir()) == [path]
