"""Which MIME types of a sandbox reach the notebook, and in what form (``SandboxMagics.output``).

The output of a sandbox is written by code that is not trusted, and a front end runs what a fresh output holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import markup

MAX_DEPTH = 64
"""Nesting of JSON that is passed on; deeper values become the text ``"..."``."""

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_IMAGE = re.compile(r"image/(?:png|jpeg|gif|webp|bmp)")
_VEGA = re.compile(r"application/vnd\.(?:vega|vegalite)\.v\d{1,2}(?:\.\d{1,3})*\+(?:json|x-json)")
_PLOTLY = "application/vnd.plotly.v1+json"
_PLOTLY_ADDRESSES = frozenset({"source", "style", "topojsonURL", "plotlyServerURL", "url", "href"})
_ADDRESS = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:|/|\\|\.)", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
_METADATA: dict[str, tuple[type, ...]] = {
    "width": (int, float, str),
    "height": (int, float, str),
    "unconfined": (bool,),
    "needs_background": (str,),
    "expanded": (bool,),
    "root": (str,),
    "alt": (str,),
}

Bundle = dict[str, Any]


class SafeOutput:
    """The rules of ``output = "safe"``.

    Parameters
    ----------
    has_widget:
        Whether a widget's model id belongs to a widget of the same sandbox; others may not be shown.
    """

    def __init__(self, has_widget: Callable[[str], bool] = lambda _: False) -> None:
        self._has_widget = has_widget

    def __call__(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Bundle, Bundle]:
        """What may be shown of a bundle. If only text is left of it, the text says what was left out."""
        kept: Bundle = {}
        refused: list[str] = []
        for mime, value in data.items():
            shown = self._value(mime, value)
            if shown is None:
                refused.append(mime[:100])
            elif shown[0] not in data or shown[0] == mime:
                kept[shown[0]] = shown[1]
        if refused and not set(kept) - {"text/plain"}:
            kept["text/plain"] = _explained(kept.get("text/plain"), refused)
        return kept, _safe_metadata(metadata, kept)

    def _value(self, mime: str, value: Any) -> tuple[str, Any] | None:
        """The type and the value to show; None if the type may not pass."""
        if _VEGA.fullmatch(mime):
            return _without_usermeta(mime, value)
        if mime == _PLOTLY:
            return mime, _without_addresses(value)
        if mime == "application/json":
            return mime, value
        if mime == WIDGET_VIEW:
            return _widget_view(value) if self._is_known(value) else None
        text = joined(value)
        return None if text is None else _text(mime, text)

    def _is_known(self, view: Any) -> bool:
        model = view.get("model_id") if isinstance(view, Mapping) else None
        return isinstance(model, str) and self._has_widget(model)


class FullOutput(SafeOutput):
    """The rules of ``output = "full"``: every type passes as it came. Only the user's configuration chooses this."""

    def __call__(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Bundle, Bundle]:
        """The bundle as it is."""
        return dict(data), dict(metadata)


def joined(value: Any) -> str | None:
    """A text value; Jupyter also writes one as a list of lines. None if it is neither."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "".join(value)
    return value if isinstance(value, str) else None


def clean_json(value: Any, depth: int = 0) -> Any:
    """``value`` rebuilt of JSON types that every front end can read: finite numbers, valid Unicode, bounded depth."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {clean_text(str(key)): clean_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_json(item, depth + 1) for item in value]
    return repr(type(value))


def clean_text(text: str) -> str:
    """``text`` without halves of surrogate pairs, which no message can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _text(mime: str, text: str) -> tuple[str, Any] | None:
    if mime == "text/plain":
        return mime, text
    if mime == "text/html":
        return mime, markup.safe_html(text)
    if mime == "text/markdown":
        safe = markup.safe_markdown(text)
        return None if safe is None else (mime, safe)
    if mime == "text/latex":
        return mime, markup.without_tex_links(text)
    if mime == "image/svg+xml":
        return "text/html", markup.image_of_svg(text)
    return (mime, text) if _IMAGE.fullmatch(mime) and _BASE64.fullmatch(text) else None


def _without_usermeta(mime: str, spec: Any) -> tuple[str, Any] | None:
    """A Vega chart that has its data in it.

    One that loads an address would read the Jupyter server with the user's cookie, and ``usermeta`` would tell
    vega-embed to put HTML into a page.
    """
    if not isinstance(spec, Mapping) or _loads(spec):
        return None
    return mime, {key: value for key, value in spec.items() if key != "usermeta"}


def _loads(node: Any) -> bool:
    if isinstance(node, Mapping):
        inner = {key: value for key, value in node.items() if key not in ("values", "datasets")}
        return "url" in inner or any(map(_loads, inner.values()))
    return isinstance(node, list) and any(map(_loads, node))


def _without_addresses(node: Any) -> Any:
    """A Plotly chart that loads nothing: images, map styles and servers named by an address are left out."""
    if isinstance(node, Mapping):
        return {key: _without_addresses(item) for key, item in node.items() if not _names_address(key, item)}
    return [_without_addresses(item) for item in node] if isinstance(node, list) else node


def _names_address(key: Any, value: Any) -> bool:
    is_address = isinstance(value, str) and _ADDRESS.match(value) and not value.lower().startswith("data:image/")
    return key in _PLOTLY_ADDRESSES and bool(is_address)


def _widget_view(view: Mapping[str, Any]) -> tuple[str, Any]:
    return WIDGET_VIEW, {"model_id": view["model_id"], "version_major": 2, "version_minor": 0}


def _explained(text: Any, refused: list[str]) -> str:
    note = f"[{', '.join(refused)} from a sandbox is not shown]"
    return f"{text}\n{note}" if isinstance(text, str) and text else note


def _safe_metadata(metadata: Mapping[str, Any], kept: Bundle) -> Bundle:
    """Only metadata of the types that are shown, and of these only what lays them out."""
    safe: Bundle = {}
    for mime in kept:
        given = metadata.get(mime)
        if isinstance(given, Mapping) and (found := _known_metadata(given)):
            safe[mime] = found
    return safe


def _known_metadata(given: Mapping[str, Any]) -> Bundle:
    return {
        name: value
        for name, types in _METADATA.items()
        if isinstance(value := given.get(name), types) and not (isinstance(value, str) and len(value) > 1000)
    }
