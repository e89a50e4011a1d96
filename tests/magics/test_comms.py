"""Widgets of a sandbox: the rules for their state, and comms through a real kernel in both directions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.magics.widget_state import WidgetRules

from .conftest import Kernel

BASE = {
    "_model_module": "@jupyter-widgets/controls",
    "_model_module_version": "2.0.0",
    "_model_name": "HTMLModel",
    "_view_module": "@jupyter-widgets/controls",
    "_view_module_version": "2.0.0",
    "_view_name": "HTMLView",
}


def rules(**state: Any) -> WidgetRules | None:
    return WidgetRules.of({"state": {**BASE, **state}}, lambda model: model == "mine")


def opened(**state: Any) -> dict[str, Any] | None:
    made = rules(**state)
    assert made is not None
    return made.message({"state": {**BASE, **state}, "buffer_paths": []})


@pytest.mark.parametrize(
    "state",
    [
        {"_model_module": "anywidget"},
        {"_model_module": "https://evil.example/x.js"},
        {"_model_module": None},
        {"_model_module": ["@jupyter-widgets/base"]},
        {"_view_module": "anywidget"},
        {"_model_module_version": "*"},
        {"_model_module_version": "1.5.0"},
        {"_model_name": "../x"},
        {"_view_name": 5},
    ],
)
def test_widgets_of_other_modules_may_not_exist(state: dict[str, Any]) -> None:
    assert rules(**state) is None


def test_html_of_widgets_is_sanitized() -> None:
    safe = opened(value="<b onclick='x()'>a</b><script>x</script>", description="<i>", description_allow_html=True)
    assert safe is not None
    assert safe["state"]["value"] == "<b>a</b>"
    assert safe["state"]["description_allow_html"] is False


def test_the_value_of_other_widgets_is_left_alone() -> None:
    made = WidgetRules("TextModel", lambda _: True)
    assert made.message({"method": "update", "state": {"value": "a < b & c"}}) == {
        "method": "update",
        "state": {"value": "a < b & c"},
        "buffer_paths": [],
    }


def test_an_update_cannot_change_the_module() -> None:
    made = rules()
    assert made is not None
    changed = made.message({"method": "update", "state": {"_view_module": "evil", "_view_name": "X", "value": "v"}})
    assert changed == {"method": "update", "state": {"value": "v"}, "buffer_paths": []}


@pytest.mark.parametrize(
    "state", [{"layout": "IPY_MODEL_other"}, {"children": [["IPY_MODEL_other"]]}, {"a": {"b": "IPY_MODEL_x"}}]
)
def test_models_of_the_notebook_may_not_be_named(state: dict[str, Any]) -> None:
    assert opened(**state) is None
    assert opened(layout="IPY_MODEL_mine") is not None


def test_stored_outputs_of_an_output_widget_follow_the_rules_of_output() -> None:
    evil = {"output_type": "display_data", "data": {"text/html": "<b onclick=x>a</b>", "application/javascript": "x"}}
    stream = {"output_type": "stream", "name": "stdout", "text": "t", "evil": 1}
    safe = opened(outputs=[evil, stream, 5, {"output_type": "error"}])
    assert safe is not None
    assert safe["state"]["outputs"] == [
        {"output_type": "display_data", "data": {"text/html": "<b>a</b>"}, "metadata": {}},
        {"output_type": "stream", "name": "stdout", "text": "t"},
    ]


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        {"method": "evil"},
        {"method": "update"},
        {"method": "update", "state": 5},
        {"method": "custom", "content": {"do": "evil"}},
        {"method": "update", "state": {}, "buffer_paths": "x"},
        {"method": "update", "state": {}, "buffer_paths": [["__proto__", "x"]]},
        {"method": "update", "state": {}, "buffer_paths": [[{}]]},
    ],
)
def test_messages_of_no_widget_do_not_pass(data: Any) -> None:
    made = rules()
    assert made is not None
    assert made.message(data) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["method", "state", "buffer_paths", "content"]), json_values), json_values)
def test_no_message_breaks_the_rules(data: dict[str, Any], value: Any) -> None:
    made = rules()
    assert made is not None
    made.message(data)
    made.message({"method": "update", "state": {"value": value, "outputs": value, "msg_id": value}})


SLIDER = """%%sandbox a
import ipywidgets as widgets
slider = widgets.IntSlider(value=3)
label = widgets.Label()
def moved(change):
    label.value = f"moved to {change.new}"
    print(f"printed {change.new}", end="")
slider.observe(moved, "value")
display(slider)
"""


@pytest.mark.bubblewrap
def test_a_widget_is_moved_from_the_front_end_after_its_cell_has_ended(kernel: Kernel) -> None:
    reply, messages = kernel.run(SLIDER)
    assert reply["status"] == "ok"
    models = {
        message["content"]["data"]["state"]["_model_name"]: message["content"]["comm_id"]
        for message in messages
        if message["msg_type"] == "comm_open"
    }
    view = next(m["content"]["data"] for m in messages if m["msg_type"] == "display_data")
    assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == models["IntSliderModel"]
    data = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
    content = {"comm_id": models["IntSliderModel"], "data": data}
    move = kernel.client.session.msg("comm_msg", content)
    kernel.client.shell_channel.send(move)
    states = []
    printed = None
    while printed is None or {"value": "moved to 7"} not in states:
        message = kernel.client.get_iopub_msg(timeout=30)
        if message["msg_type"] == "comm_msg" and message["content"]["comm_id"] == models["LabelModel"]:
            states.append(message["content"]["data"]["state"])
        if message["msg_type"] == "stream":
            printed = message
    # What a handler prints belongs to the message that moved the widget, as with a local one.
    assert printed["content"]["text"] == "printed 7"
    assert printed["parent_header"]["msg_id"] == move["header"]["msg_id"]
    assert kernel.run("%%sandbox a\nassert slider.value == 7")[0]["status"] == "ok"
    _, messages = kernel.run("%sandbox destroy a")
    assert models["IntSliderModel"] in {m["content"]["comm_id"] for m in messages if m["msg_type"] == "comm_close"}


@pytest.mark.bubblewrap
def test_a_widget_of_the_notebook_can_neither_be_taken_over_nor_shown(kernel: Kernel) -> None:
    _, messages = kernel.run("import ipywidgets\nmine = ipywidgets.IntSlider()\nmine.model_id")
    local = next(m["content"]["data"]["text/plain"] for m in messages if m["msg_type"] == "execute_result").strip("'")
    evil = (
        "kernel = get_ipython().kernel\n"
        "def send(kind, data):\n"
        f"    content = {{'comm_id': {local!r}, 'target_name': 'jupyter.widget', 'data': data}}\n"
        "    kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent())\n"
        f"state = {BASE!r}\n"
        "send('comm_open', {'state': state})\n"
        "send('comm_msg', {'method': 'update', 'state': {'value': 99}})\n"
        "send('comm_close', {})\n"
        f"view = {{'model_id': {local!r}, 'version_major': 2, 'version_minor': 0}}\n"
        "display({'application/vnd.jupyter.widget-view+json': view, 'text/plain': 'x'}, raw=True)\n"
    )
    reply, messages = kernel.run(f"%%sandbox a\n{evil}")
    assert reply["status"] == "ok"
    assert not [m for m in messages if m["msg_type"].startswith("comm_")]
    assert [list(m["content"]["data"]) for m in messages if m["msg_type"] == "display_data"] == [["text/plain"]]
    _, messages = kernel.run("mine.value")
    assert next(m["content"]["data"]["text/plain"] for m in messages if m["msg_type"] == "execute_result") == "0"
