"""HTML, Markdown, SVG and LaTeX from a sandbox, made harmless for the page that shows them.

A front end trusts the output of a cell that was just run, so script in it would run with the user's Jupyter
session. HTML is therefore sanitized with nh3; HTML that needs its scripts gets a frame with an origin of its own.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable
from copy import deepcopy

import nh3

_MEDIA = frozenset({"audio", "video", "source"})
# <wbr> is left out: a TeX command split by it would be joined again by MathJax.
_TAGS = (set(nh3.ALLOWED_TAGS) - {"wbr"}) | _MEDIA | {"font", "meter", "progress", "section", "tfoot"}
_STYLES = frozenset(
    re.findall(
        r"\S+",
        """
        border border-bottom border-collapse border-color border-left border-radius border-right border-spacing
        border-style border-top border-width color background-color display empty-cells float font font-family
        font-size font-style font-variant font-weight height letter-spacing line-height list-style-type margin
        margin-bottom margin-left margin-right margin-top max-height max-width min-height min-width opacity overflow
        overflow-x overflow-y padding padding-bottom padding-left padding-right padding-top text-align text-decoration
        text-indent text-transform vertical-align white-space width word-break word-wrap
        """,
    )
)
"""Properties that change how a thing looks in its place; none that moves it over the page or loads something."""

_SCHEMES = {"http", "https", "mailto", "data"}
_ADDRESSES = frozenset({"href", "src", "poster", "cite"})
_OPENED = re.compile(r"\s*(?:https?://|mailto:)", re.IGNORECASE)
_LOADED = re.compile(r"\s*data:(?:image|audio|video)/", re.IGNORECASE)
_NEEDS_FRAME = re.compile(r"<\s*(?:script|iframe)\b", re.IGNORECASE)
# Classes of the front end itself carry behaviour and layout.
_CLASS_OF_FRONT_END = re.compile(r"(?:jp|lm|p|cm|CodeMirror|widget|jupyter)-", re.IGNORECASE)
FRAME_STYLE = "width: 100%; height: 480px; border: 0; resize: vertical; overflow: auto"


def _attributes() -> dict[str, set[str]]:
    allowed = deepcopy(nh3.ALLOWED_ATTRIBUTES)
    allowed["*"] = {"class", "style", "title", "lang", "dir"}
    allowed["a"].add("target")
    allowed["table"] |= {"border", "cellpadding", "cellspacing", "width"}
    allowed["td"] |= {"valign", "width", "height"}
    allowed["th"] |= {"valign", "width", "height"}
    allowed["font"] = {"color", "face", "size"}
    allowed["details"] = {"open"}
    allowed["progress"] = {"value", "max"}
    allowed["meter"] = {"value", "min", "max", "low", "high", "optimum"}
    allowed["video"] = {"src", "controls", "width", "height", "loop", "muted", "poster"}
    allowed["audio"] = {"src", "controls", "loop", "muted"}
    allowed["source"] = {"src", "type"}
    return allowed


def _filter(tag: str, attribute: str, value: str) -> str | None:
    """Keep an attribute's value, change it, or drop the attribute."""
    if attribute == "class":
        return " ".join(name for name in value.split() if not _CLASS_OF_FRONT_END.match(name)) or None
    if attribute in _ADDRESSES:
        # What the page loads by itself goes out with the user's cookies, to Jupyter too, and would be a way out of a
        # sandbox without network: it has to be here already. Links wait for a click; data may not be opened by one.
        pattern = _LOADED if tag in _MEDIA | {"img"} else _OPENED
        return value if pattern.match(value) else None
    return value


def _filter_for_markdown(tag: str, attribute: str, value: str) -> str | None:
    """As :func:`_filter`, without characters that Markdown reads before it reads the tag around them."""
    kept = _filter(tag, attribute, value)
    return None if kept is None or re.search(r"[<>`\n\\]", kept) else kept


def _cleaner(attribute_filter: Callable[[str, str, str], str | None]) -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        attributes=_attributes(),
        attribute_filter=attribute_filter,
        url_schemes=_SCHEMES,
        filter_style_properties=set(_STYLES),
    )


_HTML = _cleaner(_filter)
_MARKDOWN = _cleaner(_filter_for_markdown)


def safe_html(text: str) -> str:
    """``text`` as HTML without anything that acts: sanitized, or in a frame when it needs scripts."""
    return framed(text) if needs_frame(text) else clean_html(text)


def needs_frame(text: str) -> bool:
    """Whether the HTML has scripts or frames, without which it would show nothing."""
    return _NEEDS_FRAME.search(text) is not None


def clean_html(text: str) -> str:
    """``text`` without scripts, handlers, forms, style sheets, relative addresses and ids."""
    return without_tex_links(_HTML.clean(text))


def framed(text: str) -> str:
    """``text`` in a frame of an opaque origin: its scripts run, and reach nothing of the page around it."""
    source = html.escape(text, quote=True)
    return f'<iframe sandbox="allow-scripts" style="{FRAME_STYLE}" srcdoc="{source}"></iframe>'


_AUTOLINK = re.compile(r"<(https?://[^\s<>\"'`]+)>")
# An image whose address is not data becomes a link. Nothing that could hide another address may stand in between.
_IMAGE_FROM_ELSEWHERE = re.compile(r"!\[(?![^\[\]\\`<>!]*\]\(\s*data:image/)", re.IGNORECASE)
_ACTIVE_LINK = re.compile(r"\][(:][<>]*(?:javascript|vbscript|data:(?!image/))")


def safe_markdown(text: str) -> str | None:
    """``text`` as Markdown without active HTML in it; None if it has links that run something."""
    if "<" in text:
        # A lone '>' opens nothing, and Markdown needs it for quotes.
        text = _MARKDOWN.clean(_AUTOLINK.sub(r"\1", text)).replace("&gt;", ">").replace("&amp;", "&")
        text = re.sub(r"&lt;", "<", text) if not re.search(r"&lt;[\w!/?]", text) else text
    seen = html.unescape(html.unescape(text)).lower()
    if _ACTIVE_LINK.search(re.sub(r"[\s\\\x00-\x1f\u200b-\u200f\ufeff]", "", seen)):
        return None
    return without_tex_links(_IMAGE_FROM_ELSEWHERE.sub("[", text))


def image_of_svg(text: str) -> str:
    """HTML that shows an SVG as an image: scripts in an image never run, and it loads nothing."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    return f'<img src="data:image/svg+xml;base64,{encoded}">'


_TEX_LINK = re.compile(
    r"\\(href(?!\s*\{\s*https?://[^{}\\#]*\})|url|csname|require|class|cssId|style|data|htmlData|includegraphics|mmlToken)(?![a-zA-Z])"
)


def without_tex_links(text: str) -> str:
    """``text`` with TeX commands broken that make links to scripts or reach into the page (MathJax extensions)."""
    return _TEX_LINK.sub("\\\\\u200b\\1", text) if "\\" in text else text
