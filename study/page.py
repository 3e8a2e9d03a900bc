"""Markdown, as this project writes it, and SVG as parts of an HTML page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape

INLINE = (
    (re.compile(r"\*\*(.+?)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![*\w])\*(?!\s)([^*]+)(?<!\s)\*(?![*\w])"), r"<em>\1</em>"),
    (re.compile(r"\[([^\]]+)\]\((https?://[^)]+)\)"), r'<a href="\2">\1</a>'),
    (re.compile(r"\[([^\]]+)\]\([^)]+\)"), r"\1"),  # of a file beside it, which is not in the page
)


def from_markdown(text: str, level: int) -> str:
    """Headings, paragraphs, lists, tables, and within them code, emphasis and links.

    Args:
        level: of the highest heading, 1 to 6.
    """
    parts = []
    for kind, lines in _blocks(text):
        if kind == "#":
            depth = len(lines[0]) - len(lines[0].lstrip("#"))
            title = lines[0].lstrip("# ")
            parts.append(f"<h{level + depth - 1}>{_inline(title)}</h{level + depth - 1}>")
        elif kind == "*":
            parts.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in _items(lines)) + "</ul>")
        elif kind == "|":
            head, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
            parts.append(table(head, [[_inline(cell.replace("\\|", "|")) for cell in row] for row in rows]))
        else:
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In a box of its own, which scrolls where it is wider than the page.

    Args:
        head: plain text.
        rows: HTML; the first cell of each is its label.
    """
    lines = ["<tr>" + "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in head) + "</tr>"]
    lines += [
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    ]
    body = "\n".join([f"<thead>{lines[0]}</thead>", "<tbody>", *lines[1:], "</tbody>"])
    return f'<div class="scroll" tabindex="0"><table>\n{body}\n</table></div>'


def inline_svg(svg: str, name: str, title: str) -> str:
    """A file of matplotlib's as an element that scales with the page.

    Args:
        name: goes before its ids, so that those of several figures are not the same.
        title: what it shows, for those who do not see it.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    opening, rest = svg.split(">", 1)
    opening = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escape(title)}">{rest}'


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """What stands together, and the sign of its kind."""
    for group in re.split(r"\n\s*\n", text.strip()):
        lines = group.splitlines()
        while lines:
            kind = next((sign for sign in "#*|" if lines[0].startswith(sign)), "")
            if kind == "*" and not lines[0].startswith("* "):
                kind = ""
            size = 1
            while kind != "#" and size < len(lines) and _goes_on(kind, lines[size]):
                size += 1
            yield kind, lines[:size]
            lines = lines[size:]


def _goes_on(kind: str, line: str) -> bool:
    if kind == "*":
        return line.startswith(("* ", " "))
    if kind == "|":
        return line.startswith("|")
    return not line.startswith(("#", "* ", "|"))


def _items(lines: Sequence[str]) -> list[str]:
    items: list[str] = []
    for line in lines:
        if line.startswith("* "):
            items.append(line[2:])
        else:
            items[-1] += " " + line.strip()
    return items


def _inline(text: str) -> str:
    """Code is left as it is; the rest may have emphasis and links."""
    parts = re.split(r"`([^`]+)`", text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"<code>{escape(part)}</code>"
            continue
        plain = escape(part, quote=False)
        for pattern, replacement in INLINE:
            plain = pattern.sub(replacement, plain)
        parts[i] = plain
    return "".join(parts)
