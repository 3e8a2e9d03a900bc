from __future__ import annotations

import xml.etree.ElementTree as ET

from study.page import from_markdown, inline_svg, table


def test_markdown_as_this_project_writes_it_becomes_html() -> None:
    text = """\
A paragraph with **bold**, *stressed* and `a < b **c**`
in two lines; 5 * 3 * 2.

## Heading `code`

* one that goes
  on, with [a link](https://example.org/a?b=1&c=2)
* two with [a file](docs/x.md)

|  | a & b |
| --- | --- |
| row \\| one | **1** |
"""
    assert from_markdown(text, level=2) == "\n".join(
        [
            "<p>A paragraph with <strong>bold</strong>, <em>stressed</em> and <code>a &lt; b **c**</code> in two "
            "lines; 5 * 3 * 2.</p>",
            "<h3>Heading <code>code</code></h3>",
            '<ul><li>one that goes on, with <a href="https://example.org/a?b=1&amp;c=2">a link</a></li>'
            "<li>two with a file</li></ul>",
            '<div class="scroll" tabindex="0"><table>',
            '<thead><tr><th scope="col"></th><th scope="col">a &amp; b</th></tr></thead>',
            "<tbody>",
            '<tr><th scope="row">row | one</th><td><strong>1</strong></td></tr>',
            "</tbody>",
            "</table></div>",
        ]
    )


def test_a_list_follows_a_heading_or_a_paragraph_without_an_empty_line() -> None:
    assert from_markdown("# a\nb\n* c", level=1) == "<h1>a</h1>\n<p>b</p>\n<ul><li>c</li></ul>"
    assert from_markdown("**a** b", level=1) == "<p><strong>a</strong> b</p>"


def test_nothing_in_a_tables_head_is_taken_for_html() -> None:
    assert '<th scope="col">&lt;script&gt;</th>' in table(["<script>"], [])


def test_an_svg_scales_and_keeps_its_references_apart_from_those_of_others() -> None:
    svg = """\
<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="648pt" height="300pt" viewBox="0 0 648 300" \
xmlns="http://www.w3.org/2000/svg">
 <metadata><a>of whom</a></metadata>
 <defs><path id="p1" width="3"/></defs>
 <use xlink:href="#p1" clip-path="url(#c1)"/>
</svg>
"""
    inline = inline_svg(svg, "figure4", 'a "title"')
    root = ET.fromstring(inline)
    assert root.attrib == {"viewBox": "0 0 648 300", "role": "img", "aria-label": 'a "title"'}
    assert 'id="figure4-p1" width="3"' in inline
    assert 'xlink:href="#figure4-p1" clip-path="url(#figure4-c1)"' in inline
    assert "of whom" not in inline
