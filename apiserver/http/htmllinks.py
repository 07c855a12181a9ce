"""Links in HTML that a proxy passes on: a path from the root of the backend becomes one below the proxy's own path.

Which attributes of which elements hold addresses is upstream's table (apimachinery's proxy transport). All else stays
byte for byte.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

Rewrite = Callable[[str], str]

_ADDRESSES = {
    "a": ("href",), "applet": ("codebase",), "area": ("href",), "audio": ("src",), "base": ("href",),
    "blockquote": ("cite",), "body": ("background",), "button": ("formaction",), "command": ("icon",), "del": ("cite",),
    "embed": ("src",), "form": ("action",), "frame": ("longdesc", "src"), "head": ("profile",), "html": ("manifest",),
    "iframe": ("longdesc", "src"), "img": ("longdesc", "src", "usemap"), "input": ("src", "usemap", "formaction"),
    "ins": ("cite",), "link": ("href",), "object": ("classid", "codebase", "data", "usemap"), "q": ("cite",),
    "script": ("src",), "source": ("src",), "video": ("poster", "src"),
}  # fmt: skip
_RAW = ("iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp")  # what they hold is text, no tags
_TAG = re.compile(r"""<(?:!--.*?(?:-->|\Z)|([a-zA-Z][^\s/>]*+)((?:[^"'<>]++|"[^"]*+"|'[^']*+')*+)>)""", re.DOTALL)
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]++)(\s*+=\s*+)("[^"]*+"|'[^']*+'|[^\s"'>]++)""")


def rewrite_links(text: str, rewrite: Rewrite) -> str:
    """The document with ``rewrite`` done to each address in it."""
    out: list[str] = []
    done = at = 0
    while (tag := _TAG.search(text, at)) is not None:
        at = tag.end()
        if tag[1] is None:
            continue
        name = tag[1].lower()
        if names := _ADDRESSES.get(name):
            out += [text[done : tag.start(2)], _ATTRIBUTE.sub(lambda match, w=names: _attribute(match, w, rewrite), tag[2])]
            done = tag.end(2)
        if name in _RAW:
            end = re.compile(f"</{name}", re.IGNORECASE).search(text, at)
            at = end.start() if end else len(text)
    return "".join([*out, text[done:]])


def _attribute(match: re.Match[str], names: tuple[str, ...], rewrite: Rewrite) -> str:
    if match[1].lower() not in names:
        return match[0]
    quote = match[3][0] if match[3][0] in "\"'" else ""
    address = html.unescape(match[3].strip(quote) if quote else match[3])
    changed = rewrite(address)
    return match[0] if changed == address else f'{match[1]}{match[2]}"{html.escape(changed)}"'
