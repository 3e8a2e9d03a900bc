"""A table as Markdown and as LaTeX: a head of facts, then blocks of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.space import Study


@dataclass(frozen=True)
class Block:
    """A part of the table: what stands over its columns, and its rows, each a label and then a cell a column.

    Args:
        corner: what stands over the labels.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    corner: str = ""


def markdown(study: Study, blocks: Sequence[Block], head: Mapping[str, str]) -> str:
    lines = [f"# {study.name}", "", study.description, ""]
    lines += [f"* {name}: {f'`{text}`' if name == 'command' else text}" for name, text in head.items()]
    for block in blocks:
        lines += ["", f"## {block.title}", ""]
        lines += [_row([block.corner, *block.columns]), _row(["---"] * (1 + len(block.columns)))]
        lines += map(_row, block.rows)
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(study: Study, blocks: Sequence[Block], head: Mapping[str, str]) -> str:
    """The columns of all blocks are named once where they are the same."""
    width = 1 + max(len(block.columns) for block in blocks)
    lines = [f"% {name}: {' '.join(text.split())}" for name, text in {"study": study.description, **head}.items()]
    lines += [f"\\begin{{tabular}}{{l{'c' * (width - 1)}}}", "\\toprule"]
    columns: list[str] = []
    for block in blocks:
        if columns:
            lines.append("\\midrule")
        if block.columns != columns:
            columns = block.columns
            lines.append(_latex_row(["", *columns]))
            lines.append("\\midrule")
        lines.append(f"\\multicolumn{{{width}}}{{l}}{{{_escaped(block.title)}}} \\\\")
        lines += map(_latex_row, block.rows)
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + " \\\\"


def _escaped(text: str) -> str:
    for plain, escaped in {"%": "\\%", "_": "\\_", "&": "\\&", "#": "\\#", "±": "$\\pm$"}.items():
        text = text.replace(plain, escaped)
    return text
