"""What the state of a sandbox's widget may hold: modules of ipywidgets itself, own models only, no active HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .markup import clean_html
from .safe import SafeOutput, joined

TARGET = "jupyter.widget"
METADATA = {"version": "2.1.0"}
MODULES = frozenset({"@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output"})
_VERSIONS = re.compile(r"[\^~]?(?:1\.0|2)(?:\.\d{1,4}){0,2}")
_NAME = re.compile(r"[A-Za-z]{1,60}")
_REFERENCE = "IPY_MODEL_"
_HTML_MODELS = frozenset({"HTMLModel", "HTMLMathModel"})
_FIXED = ("_model_module", "_model_module_version", "_model_name", "_view_module", "_view_module_version", "_view_name")
_FOCUS = ({"do": "focus"}, {"do": "blur"})
MAX_PATH = 32


def is_widget_message(data: Any) -> bool:
    """Whether the front end's ``data`` is what a widget view sends."""
    return isinstance(data, Mapping) and data.get("method") in ("update", "request_state", "custom")


@dataclass(frozen=True)
class WidgetRules:
    """The rules for one widget.

    Parameters
    ----------
    model_name:
        Of ipywidgets, for example ``"IntSliderModel"``.
    has_widget:
        Whether a model id is one of the same kernel's.
    """

    model_name: str
    has_widget: Callable[[str], bool]

    @classmethod
    def of(cls, data: Any, has_widget: Callable[[str], bool]) -> WidgetRules | None:
        """The rules for the widget that a ``comm_open`` with ``data`` describes; None if it may not exist here."""
        state = data.get("state") if isinstance(data, Mapping) else None
        if not isinstance(state, Mapping):
            return None
        modules = [state.get("_model_module"), state.get("_view_module") or "@jupyter-widgets/base"]
        names = [state.get("_model_name"), state.get("_view_name") or "None"]
        versions = [state.get("_model_module_version"), state.get("_view_module_version") or "2.0.0"]
        if not all(isinstance(module, str) and module in MODULES for module in modules):
            return None
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            return None
        if not all(isinstance(version, str) and _VERSIONS.fullmatch(version) for version in versions):
            return None
        return cls(str(state["_model_name"]), has_widget)

    def message(self, data: Any) -> dict[str, Any] | None:
        """``data`` of a comm message, rebuilt; None if it may not pass."""
        if not isinstance(data, Mapping):
            return None
        method = data.get("method")
        if method == "custom":
            return {"method": "custom", "content": data["content"]} if data.get("content") in _FOCUS else None
        if method not in (None, "update", "echo_update"):
            return None
        state, paths = data.get("state"), data.get("buffer_paths", [])
        if not isinstance(state, Mapping) or not _are_paths(paths) or not self._own_references(state):
            return None
        rebuilt = {"state": self._state(state, opening=method is None), "buffer_paths": paths}
        return rebuilt if method is None else {"method": method, **rebuilt}

    def _state(self, state: Mapping[str, Any], *, opening: bool) -> dict[str, Any]:
        """Without a change of module after the opening, and with HTML cleaned where a view shows HTML."""
        safe = {key: value for key, value in state.items() if opening or key not in _FIXED}
        if "description_allow_html" in safe:
            safe["description_allow_html"] = False
        for key in ("value", "placeholder") if self.model_name in _HTML_MODELS else ():
            if key in safe:
                safe[key] = clean_html(joined(safe[key]) or "")
        if "outputs" in safe:
            safe["outputs"] = self._outputs(safe["outputs"])
        return safe

    def _outputs(self, outputs: Any) -> list[Any]:
        """The stored outputs of an Output widget, under the rules of any other output."""
        rules = SafeOutput(self.has_widget)
        safe = []
        for output in outputs if isinstance(outputs, (list, tuple)) else ():
            if not isinstance(output, Mapping):
                continue
            if isinstance(output.get("data"), Mapping):
                data, metadata = rules(output["data"], output.get("metadata") or {})
                safe.append({"output_type": "display_data", "data": data, "metadata": metadata})
            elif output.get("output_type") == "stream" and isinstance(text := joined(output.get("text")), str):
                name = "stderr" if output.get("name") == "stderr" else "stdout"
                safe.append({"output_type": "stream", "name": name, "text": text})
        return safe

    def _own_references(self, node: Any, depth: int = 0) -> bool:
        """Whether every model that the state names is one of the same kernel's."""
        if isinstance(node, str):
            return not node.startswith(_REFERENCE) or self.has_widget(node.removeprefix(_REFERENCE))
        if depth > MAX_PATH:
            return False
        parts = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        return all(self._own_references(part, depth + 1) for part in parts)


def _are_paths(paths: Any) -> bool:
    """Whether these say where in the state the buffers belong: lists of keys and positions, no prototypes."""
    return isinstance(paths, list) and all(
        isinstance(path, list)
        and len(path) <= MAX_PATH
        and all(type(step) in (str, int) and step not in ("__proto__", "constructor", "prototype") for step in path)
        for path in paths
    )
