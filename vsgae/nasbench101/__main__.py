"""``python -m vsgae.nasbench101 {enumerate,import FILE,download}``."""

from __future__ import annotations

import argparse
import sys

from vsgae.nasbench101.release import KINDS, NUM_CELLS, Release, download, import_release
from vsgae.nasbench101.space import load_space


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, 1 for what may go better another time (no network, no space), 2 for bad arguments or files."""
    parser = argparse.ArgumentParser("python -m vsgae.nasbench101", description="The NAS-Bench-101 data.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("enumerate", help="count the cells, which are computed and cached the first time")
    importing = commands.add_parser("import", help="read an official release into the cache")
    importing.add_argument("file", metavar="FILE", help="nasbench_only108.tfrecord or nasbench_full.tfrecord")
    downloading = commands.add_parser("download", help="fetch an official release, and import it")
    downloading.add_argument("--kind", choices=tuple(KINDS), default="only108", help="0.5 GB or 2 GB [only108]")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "enumerate":
            _print_counts()
        else:
            _print_release(import_release(chosen.file) if chosen.command == "import" else download(chosen.kind))
    except (ValueError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


def _print_counts() -> None:
    sizes = load_space().cells.num_nodes
    for nodes, count in enumerate(sizes.bincount().tolist()):
        if count:
            print(f"{nodes} nodes: {count:>9,} cells")
    print(f"in all:  {len(sizes):>9,} cells")


def _print_release(release: Release) -> None:
    cells = f"{release.num_cells:,} of {NUM_CELLS:,} cells"
    print(f"{release.kind}: {release.num_records:,} records of {cells} in {release.path}")


if __name__ == "__main__":
    sys.exit(main())
