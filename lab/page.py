"""The shell of every HTML document the lab exports: one file that asks the network for nothing.

The content policy of the document forbids every request, so that a mistake shows as a gap and not as a leak.
Plotly is written into it once, where a figure needs it. Whatever is handed to these functions as a plain
`str` is text and is escaped where it meets the page; only `Html` is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.markup import escaped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Html(str):
    """A piece of a page, safe already. A plain `str` is text."""


def document(title: str, *parts: Html) -> Html:
    """A whole page.

    Args:
        title: What the browser's tab says.
        *parts: What stands in it, beginning with the first heading.
    """
    body = "\n".join(parts)
    return Html(
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>
{_file("page.css")}</style>
</head>
<body>
<main>
{body}
</main>
<footer>Made with the LoRA backdoor lab, for research and teaching on how backdoors are found and
removed.</footer>
{_scripts() if _PLOT in body else ""}</body>
</html>
"""
    )


def heading(text: str, level: int, anchor: str = "") -> Html:
    """A heading; levels follow each other without a gap."""
    mark = f' id="{escaped(anchor)}"' if anchor else ""
    return Html(f"<h{level}{mark}>{_html(text)}</h{level}>")


def section(title: str, level: int, *parts: Html) -> Html:
    """A part of the page under its heading."""
    return Html("<section>\n" + "\n".join([heading(title, level), *parts]) + "\n</section>")


def paragraph(text: str, kind: str = "") -> Html:
    """A paragraph.

    Args:
        text: What it says.
        kind: "lead" for the sentence that matters, "note" for what stands beside, "missing" for what is
            not there.
    """
    return Html(f"<p{_kind(kind)}>{_html(text)}</p>")


def warning(lead: str, text: str, grave: bool) -> Html:
    """What the reader must know before anything else.

    Args:
        lead: In a few words.
        text: In a sentence or two.
        grave: Whether harm could come of not knowing it; else it is good to know.
    """
    kind = "warning grave" if grave else "warning"
    return Html(f'<p class="{kind}"><strong>{_html(lead)}</strong> {_html(text)}</p>')


def quotation(text: str, told: str) -> Html:
    """A text from the data, spaces kept, with a line about it."""
    return Html(
        f'<figure class="row"><blockquote dir="auto">{_html(text)}</blockquote>'
        f"<figcaption>{_html(told)}</figcaption></figure>"
    )


def table(caption: str, head: Sequence[str], lines: Iterable[Sequence[str]], numbers: Iterable[int]) -> Html:
    """A table whose first column names its lines; on a narrow page it scrolls by itself.

    Args:
        caption: What it shows, with the n where one holds for all lines.
        head: The columns' names.
        lines: The cells, one sequence per line, as long as the head.
        numbers: Which columns, from 0, hold numbers.
    """
    right = set(numbers)
    looks = [' class="number"' if i in right else "" for i in range(len(head))]
    top = "".join(f'<th scope="col"{look}>{_html(name)}</th>' for name, look in zip(head, looks, strict=True))
    body = []
    for first, *cells in lines:
        shown = "".join(f"<td{look}>{_html(c)}</td>" for c, look in zip(cells, looks[1:], strict=True))
        body.append(f'<tr><th scope="row">{_html(first)}</th>{shown}</tr>')
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_label(caption)}"><table>'
        f"<caption>{_html(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Names and what they are, in as many columns as the page has room for."""
    lines = "".join(f"<div><dt>{_html(name)}</dt><dd>{_html(value)}</dd></div>" for name, value in pairs)
    return Html(f'<dl class="facts">{lines}</dl>')


def glossary(pairs: Iterable[tuple[str, str]]) -> Html:
    """Words and what they mean, one below the other."""
    lines = "".join(f"<dt>{_html(word)}</dt><dd>{_html(meaning)}</dd>" for word, meaning in pairs)
    return Html(f'<dl class="glossary">{lines}</dl>')


def folded(summary: str, *parts: Html) -> Html:
    """What only some readers want: closed on the screen, open on paper."""
    return Html(f"<details><summary>{_html(summary)}</summary>\n" + "\n".join(parts) + "\n</details>")


def preformatted(text: str, label: str) -> Html:
    """A file's text, line for line."""
    lines = "\n".join(escaped(line) for line in text.rstrip("\n").split("\n"))
    return Html(f'<pre tabindex="0" role="region" aria-label="{_label(label)}"><code>{lines}</code></pre>')


def contents(links: Iterable[tuple[str, str]], label: str) -> Html:
    """A list of links to headings of this page: (anchor, text)."""
    items = "".join(f'<li><a href="#{escaped(anchor)}">{_html(text)}</a></li>' for anchor, text in links)
    return Html(f'<nav aria-label="{_label(label)}"><ul>{items}</ul></nav>')


def figure(drawn: Figure, title: str, told: str, anchor: str) -> Html:
    """A Plotly figure that is drawn when the page opens, in the page's light or dark ink.

    Args:
        drawn: A figure of `lab.figures`.
        title: What it shows; also what a screen reader says in its place.
        told: How to read it, in a sentence or two.
        anchor: Its name in the page, used once; also of the picture it is saved as.
    """
    height = drawn.layout.height or 420
    stored = str(drawn.to_json())
    # between script tags only these could end the data, or be taken for markup by a careless reader
    for character in "<>&\u2028\u2029":
        stored = stored.replace(character, f"\\u{ord(character):04x}")
    said = f"<strong>{_html(title)}.</strong> {_html(told)}"
    plain = "This figure needs JavaScript, which this page holds; the tables do not."
    return Html(
        f'<figure id="{escaped(anchor)}">\n<figcaption>{said}</figcaption>\n'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_label(title)}">'
        f'<div {_PLOT} data-label="{_label(title)}" style="min-height:{int(height)}px">'
        f"<noscript>{plain}</noscript></div></div>\n"
        f'<script type="application/json">{stored}</script>\n</figure>'
    )


def _kind(name: str) -> str:
    return f' class="{name}"' if name else ""


def _html(content: str) -> str:
    return content if isinstance(content, Html) else escaped(content)


def _label(content: str) -> str:
    """The words of a caption, for an attribute; markup has no place in one."""
    if not isinstance(content, Html):
        return escaped(content)
    words, inside = [], False
    for character in content:
        if character in "<>":
            inside = character == "<"
        elif not inside:
            words.append(character)
    return "".join(words).replace('"', "&quot;")


def _scripts() -> str:
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>\n<script>\n{_file('page.js')}</script>\n"


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


_PLOT = 'class="plot"'

#: No address is allowed at all; figures are saved as pictures through data: and blob:.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
