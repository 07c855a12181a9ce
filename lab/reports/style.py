"""The look that all pages share, on a screen and on paper, and the small pieces of HTML that they are made of."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { --ink: #1f2328; --soft: #59616a; --line: #dfe3e7; --paper: #fff; --tint: #f5f6f8; --blue: #0b5c94; --red: #b3361a;
  --green: #1a6b43; }
* { box-sizing: border-box; }
html { background: var(--paper); }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  color: var(--ink); background: var(--paper); margin: 0 auto; max-width: 60rem; padding: 2.4rem 1.6rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.012em; }
h2 { font-size: 1.18rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: .98rem; margin: 1.5rem 0 .5rem; }
p { max-width: 50rem; }
a { color: var(--blue); }
.question { font-size: 1.14rem; color: var(--soft); margin: 0 0 1rem; max-width: 50rem; }
.facts { display: flex; flex-wrap: wrap; gap: .3rem 2.2rem; margin: 1.2rem 0 0; padding: .7rem 0; list-style: none;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); color: var(--soft); }
.facts b { font-size: 1.2rem; margin-right: .4rem; color: var(--ink); font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9em; font-variant-numeric: tabular-nums; }
td, th { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom: 1.5px solid #b6bdc5; vertical-align: bottom; }
td:first-child, th:first-child, td.text, th.text { text-align: left; padding-left: 0; }
td.text { white-space: normal; }
tbody tr:hover { background: var(--tint); }
code, pre { font: .86em/1.5 ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
pre { background: var(--tint); padding: .9rem 1rem; overflow-x: auto; border-radius: 6px; }
.answers { list-style: none; padding: 0; margin: 0; }
.answers li { display: grid; grid-template-columns: 5.6rem 1fr; gap: .2rem .8rem; padding: .5rem 0;
  border-bottom: 1px solid var(--line); }
.answers .why { grid-column: 2; color: var(--soft); font-size: .88em; }
.good, .bad, .open { font-weight: 700; font-size: .86rem; padding-top: .1rem; }
.good { color: var(--green); } .good::before { content: "✓ "; }
.bad { color: var(--red); } .bad::before { content: "✗ "; }
.open { color: var(--soft); }
.warning { background: #fff7e0; border-left: 3px solid #d9a400; padding: .4rem .9rem; margin: .5rem 0; max-width: none; }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 1.6rem 1.4rem; align-items: start; }
figure { margin: 0; break-inside: avoid; min-width: 0; }
figure.whole { grid-column: 1 / -1; }
figcaption { color: var(--soft); font-size: .86em; margin-top: .35rem; max-width: 50rem; }
figcaption b { color: var(--ink); font-weight: 600; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans",
  sans-serif !important; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--blue); }
.soft { color: var(--soft); }
@media (max-width: 46rem) { .plots { grid-template-columns: 1fr; } }
@media print {
  @page { size: A4; margin: 16mm 15mm; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  summary { list-style: none; color: var(--ink); font-weight: 600; break-after: avoid; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  tr, .answers li, .warning { break-inside: avoid; }
  .wide { overflow: visible; }
  pre { white-space: pre-wrap; border: 1px solid var(--line); background: none; }
  .screen { display: none; }
  td, th { padding: .2rem .5rem; }
  * { print-color-adjust: exact; }
}
"""


def escape(value: object) -> str:
    return html.escape(str(value))


def page(title: str, body: str, more_style: str = "") -> str:
    """A whole document without any address outside it."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title><style>{STYLE}{more_style}</style></head><body>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: Iterable[int] = ()) -> str:
    """Cells are HTML already, heads are not; numbers stand at the right, but for the first column and those of ``text``."""
    texts = set(text)
    top = "".join(f'<th{_kind(n, texts)}>{escape(h)}</th>' for n, h in enumerate(head))
    body = "".join("<tr>" + "".join(f"<td{_kind(n, texts)}>{c}</td>" for n, c in enumerate(row)) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _kind(number: int, texts: set[int]) -> str:
    return ' class="text"' if number in texts else ""


def figure(drawing: str, caption: str, wide: bool = True) -> str:
    return f'<figure{" class=whole" if wide else ""}>{drawing}<figcaption>{caption}</figcaption></figure>'


def facts(pairs: Iterable[tuple[object, str]]) -> str:
    """Numbers in one line, each with what it counts."""
    return '<ul class="facts">' + "".join(f"<li><b>{escape(v)}</b>{escape(what)}</li>" for v, what in pairs) + "</ul>"


def warned(lines: Iterable[str]) -> str:
    return "\n".join(f'<p class="warning">{escape(line)}</p>' for line in lines)


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>"
