import hashlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import official_format
import pytest

from vsgae.cells import Cells
from vsgae.nasbench101 import read_tfrecord, release
from vsgae.nasbench101.cache import read_table
from vsgae.nasbench101.release import download, find_release, import_release
from vsgae.nasbench101.tfrecord import SCHEMA, VERSION

pytestmark = pytest.mark.usefixtures("own_cache")


def test_an_import_keeps_every_record_and_is_found_by_its_epochs(only108: Path, own_cache: Path) -> None:
    imported = import_release(only108)
    assert imported.kind == "only108"
    assert imported.path == own_cache / f"nasbench101-only108-v{VERSION}.parquet"
    assert (imported.num_cells, imported.num_records) == (15, 45)
    assert imported.digest == hashlib.sha256(only108.read_bytes()).hexdigest()
    assert find_release(108) == imported
    table = read_table(imported.path, VERSION)
    assert table is not None
    assert table.schema.equals(SCHEMA)
    assert table.replace_schema_metadata(None).equals(read_tfrecord(only108))


def test_the_full_release_serves_all_epochs_and_those_of_108_where_the_other_is_not_there(
    only108: Path, full: Path
) -> None:
    whole = import_release(full)
    assert (whole.kind, whole.num_cells, whole.num_records) == ("full", 15, 180)
    assert {epochs: find_release(epochs) for epochs in (4, 12, 36, 108)} == dict.fromkeys((4, 12, 36, 108), whole)
    small = import_release(only108)
    assert find_release(108) == small
    assert find_release(36) == whole


def test_without_an_import_the_error_names_the_ways_to_one(only108: Path) -> None:
    both = (
        r"`python -m vsgae.nasbench101 import FILE` or `python -m vsgae.nasbench101 download --kind {}`.*--data TABLE"
    )
    with pytest.raises(ValueError, match=both.format("only108")):
        find_release(108)
    import_release(only108)
    with pytest.raises(ValueError, match=r"36 epochs \(full\) is imported.*" + both.format("full")):
        find_release(36)


def test_a_file_that_is_imported_is_not_read_again_and_one_that_has_changed_is(
    only108: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_release(only108)
    first = import_release(full)
    with monkeypatch.context() as patch:
        patch.delattr(release, "parse_tfrecord")
        assert import_release(full) == first
        assert import_release(os.path.relpath(full)) == first
    lines = full.read_bytes()
    full.write_bytes(lines[: len(lines) // 2])
    with pytest.raises(ValueError, match="cut off"):
        import_release(full)
    assert find_release(4) == first


@pytest.mark.parametrize("lost", [0, 20, 44])
def test_a_cell_without_one_of_its_runs_is_named_and_nothing_imported(
    lost: int, some: tuple[Cells, list[str]], tmp_path: Path, own_cache: Path
) -> None:
    records = list(official_format.records(*some))
    del records[lost]
    path = official_format.write(tmp_path / "short.tfrecord", records)
    expected = f"{path}: cell {some[1][lost // 3]} has 2 runs of 108 epochs; it must have 3"
    with pytest.raises(ValueError, match=re.escape(expected)):
        import_release(path)
    assert len(list(own_cache.iterdir())) == 1


def test_a_cell_without_any_run_of_one_of_the_budgets_is_named(some: tuple[Cells, list[str]], tmp_path: Path) -> None:
    records = [
        record for record in official_format.records(*some, epochs=(4, 12, 36, 108)) if record[:2] != (some[1][7], 36)
    ]
    path = official_format.write(tmp_path / "short.tfrecord", records)
    with pytest.raises(ValueError, match=f"cell {some[1][7]} has 0 runs of 36 epochs"):
        import_release(path)


def test_other_epochs_than_those_of_the_two_releases_are_refused(some: tuple[Cells, list[str]], tmp_path: Path) -> None:
    path = official_format.write(tmp_path / "odd.tfrecord", official_format.records(*some, epochs=(4, 108)))
    with pytest.raises(ValueError, match="runs of 4, 108 epochs; a release has those of 108"):
        import_release(path)


def test_a_release_that_must_be_whole_is_refused_if_it_is_not_though_it_is_imported(only108: Path) -> None:
    import_release(only108)
    message = "small_only108.tfrecord: 45 records of only108; there must be 1,270,872 of only108"
    with pytest.raises(ValueError, match=message):
        import_release(only108, "only108")
    with pytest.raises(ValueError, match="45 records of only108; there must be 5,083,488 of full"):
        import_release(only108, "full")


class Server:
    """A web server on this machine with one file, that can do without ranges, without a length, or cut a file off."""

    def __init__(self) -> None:
        self.data = b""
        self.takes_ranges = True
        self.says_length = True
        self.sends_at_most: int | None = None
        self.offset_error = 0
        self.asked: list[str | None] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        size, first = len(self.data), 0
        if request.path != "/file":
            return request.send_error(404)
        if asked and self.takes_ranges:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= size:
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{size}")
                request.end_headers()
                return None
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {first + self.offset_error}-{size - 1}/{size}")
        else:
            request.send_response(200)
        if self.says_length:
            request.send_header("Content-Length", str(size - first))
        request.end_headers()
        request.wfile.write(self.data[first:][: self.sends_at_most])
        return None


@pytest.fixture
def server(only108: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the small release, which is whole: as if the benchmark had its 15 cells."""
    monkeypatch.setattr(release, "NUM_CELLS", 15)
    serving = Server()
    serving.data = only108.read_bytes()
    thread = threading.Thread(target=serving.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield serving
    serving.http.shutdown()
    serving.http.server_close()
    thread.join()


def fetched(cache: Path) -> list[tuple[str, int]]:
    return [(path.name, path.stat().st_size) for path in cache.glob("nasbench_*")]


def test_a_download_is_imported_and_not_repeated(server: Server, own_cache: Path) -> None:
    imported = download("only108", server.url)
    assert imported == find_release(108)
    assert imported.digest == hashlib.sha256(server.data).hexdigest()
    assert fetched(own_cache) == [("nasbench_only108.tfrecord", len(server.data))]
    assert download("only108", server.url) == imported
    assert server.asked == [None]


def test_a_download_cut_off_twice_goes_on_where_it_was_and_ends_whole(server: Server, own_cache: Path) -> None:
    size, third = len(server.data), len(server.data) // 3
    server.sends_at_most = third
    for came in (third, 2 * third):
        with pytest.raises(ConnectionError, match=f"ended after {came:,} of {size:,} bytes. What has come is kept"):
            download("only108", server.url)
        assert fetched(own_cache) == [("nasbench_only108.tfrecord.part", came)]
    server.sends_at_most = None
    assert download("only108", server.url).digest == hashlib.sha256(server.data).hexdigest()
    assert server.asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_where_the_server_takes_no_ranges_the_download_begins_again(server: Server) -> None:
    server.takes_ranges, server.sends_at_most = False, 1000
    for _ in range(2):
        with pytest.raises(ConnectionError, match="ended after 1,000 of"):
            download("only108", server.url)
    server.sends_at_most = None
    assert download("only108", server.url).digest == hashlib.sha256(server.data).hexdigest()


def test_a_download_that_was_stopped_after_its_last_byte_is_not_fetched_again(server: Server, own_cache: Path) -> None:
    (own_cache / "nasbench_only108.tfrecord.part").write_bytes(server.data)
    assert download("only108", server.url).num_cells == 15
    assert server.asked == [f"bytes={len(server.data)}-"]


def test_a_leftover_longer_than_the_file_is_given_up(server: Server, own_cache: Path) -> None:
    (own_cache / "nasbench_only108.tfrecord.part").write_bytes(server.data + b"more")
    assert download("only108", server.url).num_cells == 15
    assert server.asked == [f"bytes={len(server.data) + 4}-", None]


def test_a_range_other_than_the_one_asked_for_is_not_joined(server: Server, own_cache: Path) -> None:
    (own_cache / "nasbench_only108.tfrecord.part").write_bytes(server.data[:100])
    server.offset_error = 1
    with pytest.raises(ConnectionError, match="asked for the bytes from 100 on, the server sends 'bytes 101-"):
        download("only108", server.url)
    assert fetched(own_cache) == [("nasbench_only108.tfrecord.part", 100)]


def test_a_file_whose_size_nobody_tells_is_not_taken(server: Server, own_cache: Path) -> None:
    server.says_length = False
    with pytest.raises(ConnectionError, match="does not say how long the file is"):
        download("only108", server.url)
    assert fetched(own_cache) == []


def test_a_downloaded_file_that_is_not_the_release_is_removed(
    server: Server, own_cache: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = server.data
    for bad, fault in (
        (b"<html>Please log in</html>", "record 1, at byte 0: the length is damaged"),
        (full.read_bytes(), "180 records of full; there must be 45 of only108"),
        (good[:-1] + bytes([good[-1] ^ 1]), "record 45, at byte "),
    ):
        server.data = bad
        with pytest.raises(ValueError, match=f"{fault}.*The downloaded file was removed"):
            download("only108", server.url)
        assert fetched(own_cache) == []
    server.data = good
    assert download("only108", server.url).num_cells == 15


def test_no_server_and_no_such_file_are_one_clear_line_each(server: Server, own_cache: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    with pytest.raises(ConnectionError, match=re.escape(f"cannot download {closed}: ") + ".*refused"):
        download("only108", closed)
    with pytest.raises(ConnectionError, match=r"cannot download .*/other: HTTP Error 404: Not Found"):
        download("only108", server.url.replace("file", "other"))
    assert fetched(own_cache) == []


def test_an_unknown_kind_is_refused_before_anything_is_asked(server: Server) -> None:
    with pytest.raises(ValueError, match="kind is 'only12'; it must be only108 or full"):
        download("only12", server.url)
    assert server.asked == []


def test_the_official_addresses_are_those_of_the_benchmark() -> None:
    assert [release.URL.format(kind) for kind in release.KINDS] == [
        "https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord",
        "https://storage.googleapis.com/nasbench/nasbench_full.tfrecord",
    ]
