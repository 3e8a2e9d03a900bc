"""``python -m vsgae.nasbench101 {enumerate,import FILE,download}``."""

from __future__ import annotations

import argparse
import sys

from vsgae.nasbench101.space import count_cells


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, 1 for what may go better another time (no network, no space), 2 for bad arguments or files."""
    parser = argparse.ArgumentParser("python -m vsgae.nasbench101", description="The NAS-Bench-101 data.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("enumerate", help="count the cells, which are computed and cached the first time")
    importing = commands.add_parser("import", help="read an official release into the cache")
    importing.add_argument("file", metavar="FILE", help="nasbench_only108.tfrecord or nasbench_full.tfrecord")
    downloading = commands.add_parser("download", help="fetch an official release, and import it")
    downloading.add_argument("--kind", default="only108", help="only108 (0.5 GB) or full (2 GB) [only108]")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "enumerate":
            _print_counts()
        else:
            from vsgae.nasbench101 import release  # imports torch, which takes longer than to print the counts

            print(release.import_release(chosen.file) if chosen.command == "import" else release.download(chosen.kind))
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
    counts = count_cells()
    for nodes, count in counts.items():
        print(f"{nodes} nodes: {count:>9,} cells")
    print(f"in all:  {sum(counts.values()):>9,} cells")


if __name__ == "__main__":
    sys.exit(main())
