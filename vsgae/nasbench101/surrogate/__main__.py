"""``python -m vsgae.nasbench101.surrogate {fit,score} TABLE``: how the surrogate was made, and how good it is."""

from __future__ import annotations

import argparse
import sys

import pandas as pd

from vsgae.nasbench101.surrogate.fitting import Measured, fit
from vsgae.nasbench101.surrogate.model import SHIPPED, Surrogate
from vsgae.nasbench101.surrogate.scoring import calibration, distributions, errors


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 2 for a table that cannot be used."""
    parser = argparse.ArgumentParser("python -m vsgae.nasbench101.surrogate", description=__doc__)
    parser.add_argument("command", choices=("fit", "score"), help="fit it anew, or print the tables of its model card")
    parser.add_argument("table", metavar="TABLE", help="measured cells with validation_accuracy_{4,12,36,108}")
    parser.add_argument("--file", metavar="FILE", default=SHIPPED, help="of the surrogate [the one in the package]")
    chosen = parser.parse_args(arguments)
    try:
        measured = Measured.read(chosen.table)
        if chosen.command == "fit":
            fit(measured).save(chosen.file)
            held_out = measured.held_out.sum()
            print(f"{chosen.file}: fitted to {len(measured.cells) - held_out:,} cells, {held_out:,} held out")
        else:
            _print_scores(Surrogate.load(chosen.file), measured)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _print_scores(surrogate: Surrogate, measured: Measured) -> None:
    tests, histogram = distributions(surrogate, measured)
    tables = {
        "Errors on held-out cells": errors(surrogate, measured),
        "Calibration on held-out cells": calibration(surrogate, measured),
        "Drawn against measured runs": tests,
        "The same as a histogram, in per cent": histogram,
    }
    for title, table in tables.items():
        print(f"## {title}\n\n{_markdown(table)}\n")


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns)]
    lines += [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in table.to_numpy()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
