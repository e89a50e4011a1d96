"""Rich output of a sandbox in safe mode: what passes, what is changed, and that nothing of it can act."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.magics import markup
from jupyter_sandbox.magics.safe import FullOutput, SafeOutput, clean_json

PNG = base64.b64encode(b"\x89PNG...").decode()
ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='java\nscript:alert(1)'>x</a>",
    "<a href='data:text/html,<b>'>x</a>",
    "<form action='/api/contents'><input name=a></form>",
    "<div data-commandlinker-command='console:create'>x</div>",
    "<img src='/logout'>",
    "<img src='api/contents'>",
    "<link rel=stylesheet href=x>",
    "<style>* {display: none}</style>",
    "<b style='position: fixed; background: url(https://x.example)'>x</b>",
    "<b id='site' class='jp-Button lm-Widget fine'>x</b>",
    "<base href='https://x.example'>",
    "<meta http-equiv=refresh content='0;url=https://x.example'>",
    "<object data=x></object><embed src=x>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<details open ontoggle=alert(1)>",
]
ACTIVE = re.compile(
    r"\son\w+\s*=|javascript:|data:text|<(?:form|input|style|link|base|meta|object|embed|script|svg|math)\b"
    r"|commandlinker|position|url\(|\sid=|jp-|lm-|src=\"(?!https?:|data:image|data:audio|data:video)",
    re.IGNORECASE,
)


def shown(mime: str, value: Any, **more: Any) -> dict[str, Any]:
    return SafeOutput()({mime: value, **more}, {})[0]


@pytest.mark.parametrize("attack", ATTACKS)
def test_html_that_acts_is_made_still(attack: str) -> None:
    assert not ACTIVE.search(shown("text/html", attack)["text/html"])


@pytest.mark.parametrize("attack", ATTACKS)
def test_html_in_markdown_is_made_still(attack: str) -> None:
    safe = shown("text/markdown", f"# Title\n\n{attack}\n")
    assert not ACTIVE.search(re.sub(r"&lt;.*?(&gt;|>)", "", safe.get("text/markdown", "")))


@given(st.lists(st.sampled_from([*ATTACKS, "`", "<a title='", "'>", "\n", "&lt;", "<script>", "</script>", "<", ">"])))
def test_no_mixture_of_attacks_in_html_acts(parts: list[str]) -> None:
    text = "".join(parts)
    if not markup.needs_frame(text):
        tags = re.findall(r"<[a-zA-Z/!][^>]*>", markup.clean_html(text))
        assert not any(ACTIVE.search(re.sub(r'title="[^"]*"', "", tag)) for tag in tags)


@given(
    st.lists(st.sampled_from([*ATTACKS, "`", "``", "<a title='", "'>", "\n", "&lt;", "&amp;", "\\", "<b>", "$", "<"]))
)
def test_every_tag_that_is_left_in_markdown_is_a_clean_one(parts: list[str]) -> None:
    safe = markup.safe_markdown("".join(parts))
    for tag in re.findall(r"<[a-zA-Z/!?][^<]*", safe or ""):
        assert re.match(r"</?[a-z0-9]+(?: [a-z]+=\"[^\"<>`]*\")*>", tag), tag


def test_html_with_scripts_runs_in_a_frame_with_an_origin_of_its_own() -> None:
    framed = shown("text/html", '<script>alert("1")</script>')["text/html"]
    assert framed.startswith('<iframe sandbox="allow-scripts" ')
    assert framed.count("<") == 2
    assert framed.count('"') == 6


@pytest.mark.parametrize(
    "link",
    [
        "[x](javascript:alert(1))",
        "[x](  JaVaScript:alert(1))",
        "[x](java&#115;cript:alert(1))",
        "[x](javascript&colon;alert(1))",
        "[x]\n\n[x]: javascript:alert(1)",
        "> [x]:\n> javascript:alert(1)",
        "[x](vbscript:x)",
        "[x](data:text/html,x)",
    ],
)
def test_markdown_with_links_to_scripts_is_shown_as_text_only(link: str) -> None:
    safe = shown("text/markdown", link, **{"text/plain": "plain"})
    assert safe == {"text/plain": "plain\n[text/markdown from a sandbox is not shown]"}


@pytest.mark.parametrize(
    "text",
    [
        "# T\n\n> quote\n\n$a < b$ & *c*",
        "JavaScript: The Good Parts",
        "![i](data:image/png;base64,AA==)",
        "`a > b`",
        "1 < 2",
    ],
)
def test_harmless_markdown_is_not_touched(text: str) -> None:
    assert shown("text/markdown", text)["text/markdown"] == text


def test_addresses_in_angle_brackets_stay_links() -> None:
    assert shown("text/markdown", "<https://example.org/a?b> [x](<javascript:alert(1)>)") == {
        "text/markdown": "https://example.org/a?b [x]()"
    }


@pytest.mark.parametrize("tag", ["img", "video", "audio", "source"])
@pytest.mark.parametrize("address", ["https://x.example/?secret", "http://localhost:8888/logout", "//x.example", "/x"])
def test_a_page_loads_nothing_by_itself_that_a_sandbox_names(tag: str, address: str) -> None:
    assert address not in shown("text/html", f"<{tag} src='{address}'>")["text/html"]


@pytest.mark.parametrize(
    "text",
    [
        "![i](https://x.example/?secret)",
        "![i][r]\n\n[r]: https://x.example",
        "![b [c](data:image/png,x)](https://x.example)",
        r"![a\](data:image/png,x)](https://x.example)",
        "![`](data:image/png,x)`](https://x.example)",
        "![](/logout)",
    ],
)
def test_an_image_from_elsewhere_in_markdown_is_a_link(text: str) -> None:
    assert "![" not in shown("text/markdown", text)["text/markdown"]


def test_a_plotly_chart_keeps_its_data_and_loses_its_addresses() -> None:
    chart = {
        "data": [{"x": [1, 2], "y": [3, 4], "type": "scatter"}, {"type": "image", "source": "https://x.example/a.png"}],
        "layout": {
            "images": [{"source": "/logout", "x": 0}, {"source": "data:image/png;base64,AA=="}],
            "mapbox": {"style": "//x.example/style.json"},
        },
        "config": {"plotlyServerURL": "https://x.example", "topojsonURL": "https://x.example"},
    }
    assert shown("application/vnd.plotly.v1+json", chart)["application/vnd.plotly.v1+json"] == {
        "data": [{"x": [1, 2], "y": [3, 4], "type": "scatter"}, {"type": "image"}],
        "layout": {"images": [{"x": 0}, {"source": "data:image/png;base64,AA=="}], "mapbox": {}},
        "config": {},
    }


def test_latex_cannot_make_links_to_scripts() -> None:
    for text in (r"$\href{javascript:alert(1)}{x}$", r"\csname href\endcsname", r"\let\x\href", r"\cssId{site}{x}"):
        assert not re.search(r"\\(href|csname|cssId)", shown("text/latex", text)["text/latex"])
    kept = r"\href{https://example.org/}{x} \frac{1}{2}"
    assert shown("text/latex", kept)["text/latex"] == kept


def test_svg_is_shown_as_an_image() -> None:
    safe = shown("image/svg+xml", "<svg><script>alert(1)</script></svg>")
    assert set(safe) == {"text/html"}
    assert re.fullmatch(r'<img src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]+">', safe["text/html"])


def test_svg_beside_html_leaves_the_html() -> None:
    assert shown("image/svg+xml", "<svg/>", **{"text/html": "<i>x</i>"}) == {"text/html": "<i>x</i>"}


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/gif", "image/webp"])
def test_images_pass_when_they_are_base64(mime: str) -> None:
    assert shown(mime, PNG) == {mime: PNG}
    assert mime not in shown(mime, '"><script>', **{"text/plain": "x"})


def test_vega_passes_without_addresses_and_without_options_for_the_page() -> None:
    mime = "application/vnd.vegalite.v5+json"
    spec = {"data": {"values": [{"url": "a column"}]}, "usermeta": {"embedOptions": {"sourceHeader": "<script>"}}}
    assert shown(mime, spec) == {mime: {"data": {"values": [{"url": "a column"}]}}}
    assert mime not in shown(mime, {"data": {"url": "/api/contents/secret.ipynb"}})
    assert mime not in shown(mime, {"layer": [{"data": {"url": {"signal": "x"}}}]})


@pytest.mark.parametrize(
    "mime", ["application/javascript", "text/javascript", "application/vnd.evil+json", "application/pdf"]
)
def test_what_acts_or_is_unknown_becomes_a_line(mime: str) -> None:
    assert shown(mime, "alert(1)") == {"text/plain": f"[{mime} from a sandbox is not shown]"}


def test_an_unknown_type_beside_a_known_one_is_left_out_without_a_line() -> None:
    assert shown("application/vnd.x+json", {}, **{"text/plain": "a", "image/png": PNG}) == {
        "text/plain": "a",
        "image/png": PNG,
    }


def test_a_widget_is_shown_only_if_it_belongs_to_the_sandbox() -> None:
    mime = "application/vnd.jupyter.widget-view+json"
    rules = SafeOutput(lambda model: model == "mine")
    assert rules({mime: {"model_id": "mine", "x": 1}}, {})[0][mime]["model_id"] == "mine"
    assert mime not in rules({mime: {"model_id": "other"}}, {})[0]
    assert mime not in rules({mime: "mine"}, {})[0]


def test_metadata_is_reduced_to_what_lays_out() -> None:
    given_metadata = {"image/png": {"width": 3, "onload": "x", "alt": "y" * 5000}, "isolated": True, "x": {"y": 1}}
    assert SafeOutput()({"image/png": PNG}, given_metadata)[1] == {"image/png": {"width": 3}}


def test_full_output_passes_everything_as_it_came() -> None:
    data = {"application/javascript": "alert(1)", "text/html": "<script>"}
    assert FullOutput()(data, {"a": 1}) == (data, {"a": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(["text/html", "text/markdown", "image/png", "application/json", "x/y"]), json_values
    )
)
def test_no_bundle_breaks_the_rules(data: dict[str, Any]) -> None:
    kept, metadata = SafeOutput()(data, data)
    assert set(metadata) <= set(kept)


def test_deep_json_is_cut() -> None:
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    assert "..." in str(clean_json(deep))


def test_numbers_that_json_has_not_become_text() -> None:
    assert clean_json([float("inf"), float("nan"), 1.5]) == ["inf", "nan", 1.5]
