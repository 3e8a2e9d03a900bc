import functools
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from vsgae import nasbench101
from vsgae.cells import Cells
from vsgae.nasbench101 import Space, enumeration, load_space, module_hashes
from vsgae.nasbench101 import space as space_module
from vsgae.nasbench101.space import count_cells


@pytest.fixture(scope="module")
def whole() -> Space:
    return load_space()


@pytest.fixture
def small_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an empty cache, for a space of the 91 cells of up to 4 nodes, so that building it takes no time."""
    monkeypatch.setenv("VSGAE_CACHE", str(tmp_path))
    monkeypatch.setattr(enumeration, "enumerate_codes", functools.partial(enumeration.enumerate_codes, max_nodes=4))
    return tmp_path / f"nasbench101-cells-v{space_module.VERSION}.parquet"


def same(one: Space, other: Space) -> bool:
    return bool(one.cells.equal(other.cells).all()) and one.hashes.equals(other.hashes)


def test_the_space_is_the_enumeration_and_its_hashes(whole: Space, space: Cells) -> None:
    assert len(whole.cells) == len(whole.hashes) == len(space) == 423_624
    assert whole.cells.equal(space).all()
    some = torch.arange(0, len(space), 997)
    assert module_hashes(space[some]) == whole.hashes.take(some.numpy()).to_pylist()


def test_every_cell_has_a_hash_of_its_own(whole: Space) -> None:
    assert len(whole.hashes.unique()) == 423_624


@pytest.mark.measured
def test_every_measured_hash_is_that_of_a_cell(whole: Space, measured_table: Path) -> None:
    hashes = pyarrow.csv.read_csv(measured_table)["module_hash"]
    index = whole.index(hashes)
    assert len(index) == len(set(index.tolist())) == len(hashes)
    assert whole.hashes.take(index).equals(hashes.combine_chunks())


def test_a_hash_is_found_at_its_place(whole: Space) -> None:
    places = [423_623, 0, 7, 7, 100_000]
    hashes = [whole.hashes[place].as_py() for place in places]
    assert whole.index(hashes).tolist() == places
    assert whole.index(pa.chunked_array([hashes[:2], hashes[2:]])).tolist() == places
    assert whole.index([]).tolist() == []
    assert whole.index(hashes).dtype == "int64"


def test_an_unknown_hash_is_named_with_its_row(whole: Space) -> None:
    hashes = whole.hashes[:3].to_pylist()
    with pytest.raises(ValueError, match="row 3: 'abc' is the module hash of no NAS-Bench-101 cell"):
        whole.index([*hashes, "abc", "def"])


def test_it_is_built_once_with_a_progress_bar_and_then_read(
    small_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = load_space()
    assert "hashing: 100%" in capsys.readouterr().err
    assert small_cache.exists()
    content = small_cache.read_bytes()
    assert same(load_space(), built)
    assert capsys.readouterr() == ("", "")
    assert small_cache.read_bytes() == content
    assert len(built.cells) == 91


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: b"x" * 500])
def test_a_damaged_file_is_told_and_built_again(small_cache: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    built = load_space()
    content = small_cache.read_bytes()
    small_cache.write_bytes(damage(content))
    assert same(load_space(), built)
    assert len(caplog.messages) == 1
    assert "is damaged" in caplog.messages[0]
    assert small_cache.read_bytes() == content


def test_two_that_build_at_once_both_have_the_whole_space(small_cache: Path) -> None:
    start = threading.Barrier(2)
    found: list[Space] = []

    def build() -> None:
        start.wait()
        found.append(load_space())

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(found[0], found[1])
    assert same(found[0], load_space())
    assert list(small_cache.parent.iterdir()) == [small_cache]


@pytest.mark.parametrize(
    ("work", "slow"),
    [
        ("load_space()", ("torch_geometric", "pandas", "sklearn", "scipy", "matplotlib")),
        ("count_cells()", ("torch", "pandas", "requests")),
    ],
)
def test_a_warm_start_imports_nothing_slow(whole: Space, work: str, slow: tuple[str, ...]) -> None:
    program = f"""
import sys
from vsgae.nasbench101.space import count_cells, load_space
{work}
print([name for name in {slow} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_cells_are_counted_from_a_cache_that_is_there_or_not(small_cache: Path) -> None:
    expected = {2: 1, 3: 6, 4: 84}
    assert not small_cache.exists()
    assert count_cells() == expected
    assert small_cache.exists()
    assert count_cells() == expected


def test_what_is_imported_when_it_is_asked_for_is_there() -> None:
    assert dir(nasbench101) == nasbench101.__all__
    for name in nasbench101.__all__:
        assert getattr(nasbench101, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = nasbench101.nonsense
