import base64
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import official_format
import pytest
from official_format import Record, crc32c, frame, metrics, varint, write

from vsgae.cells import Cells
from vsgae.nasbench101 import Space, module_hashes, read_tfrecord, tfrecord

BEFORE = (0.0, 0.0, 0.1, 0.11, 0.12)
HALFWAY = (54.0, 812.5, 0.75, 0.74, 0.73)
FINAL = (108.0, 1625.25, 1.0, 0.9375, 0.9275)


def one_record(known: Space, place: int = 423_000, epochs: int = 108, metrics_text: str | None = None) -> Record:
    """A good record of the cell at this place in the enumeration."""
    ((adjacency, operations),) = official_format.texts(known.cells[place])
    text = metrics([BEFORE, HALFWAY, FINAL], 8_555_530, 2000.5) if metrics_text is None else metrics_text
    return known.hashes[place].as_py(), epochs, adjacency, operations, text


def error_of(path: Path) -> str:
    with pytest.raises(ValueError, match="record") as caught:
        read_tfrecord(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_the_writer_of_these_tests_and_the_reader_agree_on_the_crc() -> None:
    assert crc32c(b"123456789") == 0xE3069283 == google_crc32c.value(b"123456789")
    data = np.random.default_rng(0).bytes(1000)
    assert all(crc32c(data[:length]) == google_crc32c.value(data[:length]) for length in range(0, 1000, 7))


def test_every_field_of_every_record_is_a_value_of_its_row_in_the_order_of_the_file(
    known: Space, tmp_path: Path
) -> None:
    slower = (108.0, 1700.0, 0.5, 0.25, 0.125)
    records = [
        one_record(known, 5, 108),
        one_record(known, 400_000, 4),
        one_record(known, 5, 108, metrics([BEFORE, HALFWAY, slower], 7, 2500.0)),
    ]
    rows = read_tfrecord(write(tmp_path / "three.tfrecord", records)).to_pylist()
    first = {
        "module_hash": known.hashes[5].as_py(),
        "epochs": 108,
        "repeat": 0,
        "adjacency": records[0][2],
        "operations": records[0][3],
        "trainable_parameters": 8_555_530,
        "total_time": 2000.5,
        "halfway_current_epoch": 54.0,
        "halfway_training_time": 812.5,
        "halfway_train_accuracy": 0.75,
        "halfway_validation_accuracy": 0.74,
        "halfway_test_accuracy": 0.73,
        "final_current_epoch": 108.0,
        "final_training_time": 1625.25,
        "final_train_accuracy": 1.0,
        "final_validation_accuracy": 0.9375,
        "final_test_accuracy": 0.9275,
    }
    final = dict(zip((f"final_{measure}" for measure in tfrecord.MEASURES), slower, strict=True))
    other_cell = {"module_hash": records[1][0], "epochs": 4, "adjacency": records[1][2], "operations": records[1][3]}
    assert rows[0] == first
    assert rows[1] == {**first, **other_cell}
    assert rows[2] == {**first, **final, "repeat": 1, "trainable_parameters": 7, "total_time": 2500.0}


def test_all_budgets_and_repeats_are_kept_with_the_schema_that_is_promised(
    full: Path, some: tuple[Cells, list[str]]
) -> None:
    table = read_tfrecord(full)
    assert table.schema.equals(tfrecord.SCHEMA)
    runs = [(row["module_hash"], row["epochs"], row["repeat"]) for row in table.to_pylist()]
    assert runs == [(name, epochs, repeat) for name in some[1] for epochs in (4, 12, 36, 108) for repeat in range(3)]


def test_the_metrics_may_be_wrapped_reordered_extended_and_without_what_is_zero(known: Space, tmp_path: Path) -> None:
    plain = metrics([BEFORE, HALFWAY, FINAL], 8_555_530, 2000.5)
    wrapped = "\n".join(plain[low : low + 76] for low in range(0, len(plain), 76)) + "\n"
    path_and_unknown_field = b"\x32\x05model" + b"\x78\x01"
    extended = metrics([BEFORE, HALFWAY, FINAL], 8_555_530, 2000.5, extra=path_and_unknown_field)
    message = struct.pack("<Bd", 3 << 3 | 1, 2000.5) + b"\x10" + varint(8_555_530)  # evaluations last, fields reversed
    for evaluation in (BEFORE, HALFWAY, FINAL):
        fields = [struct.pack("<Bd", number << 3 | 1, value) for number, value in enumerate(evaluation, 1) if value]
        body = b"".join(reversed(fields))
        message += b"\x0a" + varint(len(body)) + body
    variants = [plain, wrapped, extended, base64.b64encode(message).decode()]
    tables = [
        read_tfrecord(write(tmp_path / f"{i}.tfrecord", [one_record(known, metrics_text=text)]))
        for i, text in enumerate(variants)
    ]
    assert all(table.equals(tables[0]) for table in tables)


def test_a_cell_in_another_order_of_its_nodes_keeps_its_hash_and_is_read_as_it_stands(
    known: Space, tmp_path: Path
) -> None:
    ops = ["input", "conv3x3-bn-relu", "maxpool3x3", "output"]
    cells = Cells.from_nasbench(
        [
            ([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], [ops[0], *inner, ops[3]])
            for inner in (ops[1:3], ops[2:0:-1])
        ]
    )
    assert len(set(module_hashes(cells))) == 1
    for cell in (cells[0], cells[1]):
        ((adjacency, operations),) = official_format.texts(cell)
        record = (module_hashes(cell)[0], 36, adjacency, operations, one_record(known)[4])
        (row,) = read_tfrecord(write(tmp_path / "cell.tfrecord", [record])).to_pylist()
        assert (row["adjacency"], row["operations"]) == (adjacency, operations)


@pytest.fixture
def three(known: Space, tmp_path: Path) -> tuple[Path, list[int]]:
    """A file of three records, and where each begins and the file ends."""
    path = write(tmp_path / "three.tfrecord", (one_record(known, place) for place in (0, 3000, 300_000)))
    starts = [0]
    with open(path, "rb") as file:
        while header := file.read(8):
            starts.append(file.seek(int.from_bytes(header, "little") + 8, os.SEEK_CUR))
    return path, starts


def test_a_file_that_is_cut_off_anywhere_inside_a_record_is_refused_and_that_record_named(
    three: tuple[Path, list[int]],
) -> None:
    path, starts = three
    data = path.read_bytes()
    for size in range(1, len(data)):
        path.write_bytes(data[:size])
        if size in starts:
            assert read_tfrecord(path).num_rows == starts.index(size)
        else:
            record = next(i for i, start in enumerate(starts) if start > size)
            start = starts[record - 1]
            message = error_of(path)
            assert message.startswith(f"record {record}, at byte {start:,}: the file is cut off: "), size
            assert f"{size - start} bytes are left" in message


def test_a_bit_flipped_anywhere_is_found_and_the_record_named(three: tuple[Path, list[int]]) -> None:
    path, starts = three
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        record = next(i for i, start in enumerate(starts) if start > place)
        part = "length" if place - starts[record - 1] < 12 else "data"
        expected = f"record {record}, at byte {starts[record - 1]:,}: the {part} is damaged: its CRC32C is not the "
        assert error_of(path).startswith(expected)


def test_an_empty_file_and_an_absent_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="empty: the file holds no records"):
        read_tfrecord(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_tfrecord(tmp_path / "absent")


DIAMOND = "0110000100010000"
BAD_CELLS = {
    "a hash of no cell": ("f" * 32, None, None, "the module hash 'ffff"),
    "a hash of another cell": ("of another", None, None, "is not that of its cell, "),
    "no zeros and ones": (None, "0120" * 4, "input,maxpool3x3,maxpool3x3,output", "is not 4 x 4 zeros and ones"),
    "other digits": (
        None,
        "0\uff1110000100010000",
        "input,maxpool3x3,maxpool3x3,output",
        "is not 4 x 4 zeros and ones",
    ),
    "another size": (None, "0100", "input,maxpool3x3,output", "is not 3 x 3 zeros and ones"),
    "a backward edge": (None, "0110000101010000", "input,maxpool3x3,maxpool3x3,output", "upper triangular"),
    "a loop": (None, "0110010100010000", "input,maxpool3x3,maxpool3x3,output", "upper triangular"),
    "an unknown operation": (None, DIAMOND, "input,conv5x5,maxpool3x3,output", "operation 'conv5x5'; allowed are"),
    "no operation": (None, DIAMOND, "input,,maxpool3x3,output", "operation ''; allowed are"),
    "no output": (None, DIAMOND, "input,maxpool3x3,maxpool3x3,maxpool3x3", "must begin with 'input' and end with"),
    "two inputs": (None, DIAMOND, "input,input,maxpool3x3,output", "is no cell of the benchmark"),
    "a node on no path": (None, "0011000100010000", "input,maxpool3x3,maxpool3x3,output", "is no cell of the"),
    "ten edges": (
        None,
        "011111001111000001000001000001000000",
        "input,maxpool3x3,maxpool3x3,maxpool3x3,maxpool3x3,output",
        "at most 9 edges",
    ),
    "eight nodes": (None, "0" * 64, "input," + "maxpool3x3," * 6 + "output", "allowed are 2 to 7 nodes"),
    "one node": (None, "0", "input", "allowed are 2 to 7 nodes"),
    "nothing": (None, "", "", "is not 1 x 1 zeros and ones"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_record_that_is_no_cell_is_refused_by_number_place_and_fault(case: str, known: Space, tmp_path: Path) -> None:
    new_hash, adjacency, operations, fault = BAD_CELLS[case]
    good, bad = one_record(known, 400_000), list(one_record(known, 300_000))
    if new_hash:
        bad[0] = good[0] if new_hash == "of another" else new_hash
    if adjacency is not None:
        bad[2:4] = adjacency, operations
    message = error_of(write(tmp_path / "bad.tfrecord", [good, tuple(bad), good]))
    assert message.startswith(f"record 2, at byte {len(frame(json.dumps(good).encode()))}: ")
    assert fault in message


def test_ten_edges_are_too_many_though_their_hash_is_right(known: Space, tmp_path: Path) -> None:
    dense = np.triu(np.ones((5, 5), int), 1)
    cell = Cells.from_nasbench([(dense, ["input", "maxpool3x3", "maxpool3x3", "maxpool3x3", "output"])])
    ((adjacency, operations),) = official_format.texts(cell)
    record = (module_hashes(cell)[0], 108, adjacency, operations, one_record(known)[4])
    assert "at most 9 edges" in error_of(write(tmp_path / "ten.tfrecord", [record]))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "not JSON"),
        (b"{]", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"hash": 1}', "it must be [module hash, epochs, adjacency, operations, metrics]"),
        (b"7", "the data is 7; it must be"),
        (b'["a", 108, "b", "c"]', "it must be [module hash"),
        (b'["a", "108", "b", "c", "d"]', "it must be [module hash"),
        (b'["a", true, "b", "c", "d"]', "it must be [module hash"),
        (b'["a", 108, "b", "c", "d", "e"]', "it must be [module hash"),
        (b'["a", 108, null, "c", "d"]', "it must be [module hash"),
    ],
)
def test_data_that_is_no_list_of_the_five_parts_is_refused(data: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tfrecord"
    path.write_bytes(frame(data, google_crc32c.value))
    message = error_of(path)
    assert message.startswith("record 1, at byte 0: the data is ")
    assert fault in message
    assert len(message) < 300


@pytest.mark.parametrize("epochs", [0, 54, 109, -4])
def test_epochs_that_the_benchmark_does_not_have_are_refused(epochs: int, known: Space, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.tfrecord", [one_record(known, epochs=epochs)])
    assert error_of(path) == (f"record 1, at byte 0: trained for {epochs} epochs; the benchmark has 4, 12, 36, 108")


GOOD = metrics([BEFORE, HALFWAY, FINAL], 1, 1.0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD[:-3] + "!" + GOOD[-2:], "are not a protobuf in base64"),
        (GOOD[:-1], "are not a protobuf in base64"),
        (GOOD[: len(GOOD) // 8 * 4], "are not a protobuf in base64"),
        (base64.b64encode(b"\x0a\xff").decode(), "are not a protobuf in base64"),
        (base64.b64encode(b"\x07\x07").decode(), "are not a protobuf in base64"),
        ("\u00e9" * 4, "are not a protobuf in base64"),
        ("", "the metrics have 0 evaluations; there must be 3"),
        (metrics([BEFORE, FINAL], 1, 1.0), "the metrics have 2 evaluations; there must be 3"),
        (metrics([BEFORE, HALFWAY, HALFWAY, FINAL], 1, 1.0), "the metrics have 4 evaluations; there must be 3"),
    ],
)
def test_metrics_that_are_not_the_protobuf_are_refused(text: str, fault: str, known: Space, tmp_path: Path) -> None:
    message = error_of(write(tmp_path / "bad.tfrecord", [one_record(known, metrics_text=text)]))
    assert message.startswith("record 1, at byte 0: the metrics ")
    assert fault in message


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        (4, 1.0001, "final_test_accuracy is 1.0001; it must be in [0, 1]"),
        (4, float("nan"), "final_test_accuracy is nan; it must be in [0, 1]"),
        (3, -0.1, "final_validation_accuracy is -0.1; it must be in [0, 1]"),
        (2, 93.5, "final_train_accuracy is 93.5; it must be in [0, 1]"),
        (1, -5.0, "final_training_time is -5.0; it must be finite and not negative"),
        (1, float("inf"), "final_training_time is inf; it must be finite and not negative"),
    ],
)
def test_a_value_out_of_range_is_refused(field: int, value: float, allowed: str, known: Space, tmp_path: Path) -> None:
    bad = list(FINAL)
    bad[field] = value
    records = [one_record(known, 0), one_record(known, 0, metrics_text=metrics([BEFORE, HALFWAY, tuple(bad)], 1, 1.0))]
    message = error_of(write(tmp_path / "bad.tfrecord", [*records, one_record(known, 1)]))
    assert message.startswith("record 2, at byte ")
    assert message.endswith(allowed)


def test_a_fourth_run_of_a_cell_for_the_same_epochs_is_refused(
    some: tuple[Cells, list[str]], known: Space, tmp_path: Path
) -> None:
    records = [*official_format.records(*some), *official_format.records(some[0][4], [some[1][4]], seed=9, repeats=1)]
    message = error_of(write(tmp_path / "four.tfrecord", records))
    assert message.startswith("record 46, at byte ")
    assert message.endswith(f"a record too many of cell {some[1][4]} at 108 epochs, which has 3 already")


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (0, 2)])
def test_the_same_run_twice_is_refused_wherever_it_stands_again(
    first: int, second: int, some: tuple[Cells, list[str]], tmp_path: Path
) -> None:
    runs = list(official_format.records(some[0][3], [some[1][3]]))
    runs[second] = runs[first]
    other = list(official_format.records(some[0][8], [some[1][8]], seed=1))
    records = [runs[0], other[0], runs[1], other[1], runs[2], other[2]]
    message = error_of(write(tmp_path / "twice.tfrecord", records))
    assert message.startswith(f"record {2 * second + 1}, at byte ")
    assert message.endswith(f"the same as record {2 * first + 1}: a duplicate")


def test_the_same_values_for_other_epochs_or_another_cell_are_no_duplicate(known: Space, tmp_path: Path) -> None:
    records = [one_record(known, 0, 108), one_record(known, 0, 36), one_record(known, 1, 108)]
    assert read_tfrecord(write(tmp_path / "fine.tfrecord", records)).num_rows == 3


def test_a_large_file_is_read_once_and_again_when_it_has_changed(
    full: Path, only108: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    parse = tfrecord.parse_tfrecord
    monkeypatch.setattr(tfrecord, "KEPT_FROM", 1)
    monkeypatch.setattr(tfrecord, "parse_tfrecord", lambda path: parsed.append(path) or parse(path))
    first = read_tfrecord(full)
    assert read_tfrecord(str(full)).equals(first, check_metadata=True)
    assert len(parsed) == 1
    assert first.schema.equals(tfrecord.SCHEMA, check_metadata=True)

    os.replace(only108, full)
    changed = read_tfrecord(full)
    assert len(parsed) == 2
    assert changed.num_rows == first.num_rows // 4

    (kept,) = own_cache.glob("tfrecord-*.parquet")
    kept.write_bytes(kept.read_bytes()[:-100])
    assert read_tfrecord(full).equals(changed)
    assert len(parsed) == 3


def test_a_file_with_a_fault_is_not_kept(full: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "KEPT_FROM", 1)
    with open(full, "ab") as file:
        file.write(b"more")
    for _ in range(2):
        assert "the file is cut off: 4 bytes are left" in error_of(full)
    assert not list(own_cache.glob("tfrecord-*"))


def test_the_reader_imports_no_tensorflow() -> None:
    check = "import sys, vsgae.nasbench101.tfrecord; sys.exit(any('tensorflow' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", check], check=True)
