"""How a message shows itself in a notebook: as Markdown that is safe to trust.

Text is shown as Markdown, images, audio and video inline, reasoning folded, tool calls as a table.

A notebook trusts the output of its own cells: it would run the HTML in it and load what it names.
What a model or a user said is therefore made inert: no HTML of theirs is left, no link that runs
code, and no image that would be fetched, for its address could carry the conversation away. Code
that has any of that in it is written as HTML of ours, with every character escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from .content import Block, data_or_url

__all__ = ["message_markdown", "safe_markdown"]


def message_markdown(blocks: Sequence[Block]) -> str:
    """The content blocks of a message as Markdown."""
    shown: list[str] = []
    rows: list[Block] = []
    for block in blocks:
        if block.get("type") in _CALLS:
            rows.append(block)
            continue
        shown += _flushed(rows)
        shown.append(_BLOCKS.get(str(block.get("type")), _other)(block))
    shown += _flushed(rows)
    return "\n\n".join(part for part in shown if part)


# ---- text ----------------------------------------------------------------------------------------

_FENCE: Final = re.compile(
    r"^(`{3,}|~{3,})[^`\n]*\n(.*?\n)?\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL
)
_CODE: Final = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_UNSAFE_LINK: Final = re.compile(
    r"(\]\(\s*|\]:\s*)(?=(javascript|vbscript|data|file)\\?:)", re.IGNORECASE
)
_ENTITY: Final = re.compile(r"&(?=#|\w+;)")


def safe_markdown(text: str) -> str:
    """`text` as Markdown without anything that a notebook would run or fetch."""
    made: list[str] = []
    end = 0
    for fence in _FENCE.finditer(text):
        made.append(_inline(text[end : fence.start()]))
        made.append(_fenced(fence))
        end = fence.end()
    made.append(_inline(text[end:]))
    return "".join(made)


def _fenced(fence: re.Match[str]) -> str:
    if _inert(fence.group()) == fence.group():
        return fence.group()
    return f"<pre><code>{_escaped(fence.group(2) or '')}</code></pre>\n"


def _inline(text: str) -> str:
    made: list[str] = []
    end = 0
    for span in _CODE.finditer(text):
        made.append(_inert(text[end : span.start()]))
        plain = _inert(span.group()) == span.group()
        made.append(span.group() if plain else f"<code>{_escaped(span.group(2))}</code>")
        end = span.end()
    made.append(_inert(text[end:]))
    return "".join(made)


def _inert(text: str) -> str:
    text = _ENTITY.sub("&amp;", text)  # first: what follows writes entities
    text = text.replace("<", "&lt;").replace("![", "!\\[")
    return _UNSAFE_LINK.sub(r"\1#", text)


_MEANING: Final = re.compile(r"[^\w ]|_")
_PAGE: Final = re.compile(r"https?://[^\s<>]+")


def _escaped(text: str) -> str:
    """`text` as HTML in which nothing means anything to Markdown."""
    return _MEANING.sub(lambda sign: f"&#{ord(sign.group())};", text)


def _code(text: str) -> str:
    return f"<code>{_escaped(text)}</code>"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{_escaped(title)}</summary>\n\n{body}\n\n</details>"


# ---- blocks --------------------------------------------------------------------------------------


def _text(block: Block) -> str:
    return "\n\n".join(filter(None, (safe_markdown(str(block.get("text") or "")), _sources(block))))


def _sources(block: Block) -> str:
    """The pages that a text cites, each once."""
    pages: dict[str, str] = {}
    for note in block.get("annotations") or ():
        url = str(note.get("url") or "") if isinstance(note, Mapping) else ""
        if _PAGE.fullmatch(url):
            pages.setdefault(url, str(note.get("title") or url))
    links = (_link(title, url) for url, title in pages.items())
    return "Sources: " + ", ".join(links) if pages else ""


def _link(title: str, url: str) -> str:
    return f'<a href="{_escaped(url)}" rel="noreferrer">{_escaped(title)}</a>'


def _reasoning(block: Block) -> str:
    text = str(block.get("reasoning") or "")
    return _folded("Reasoning", safe_markdown(text)) if text else ""


def _plain_text(block: Block) -> str:
    title = str(block.get("title") or block.get("mime_type") or "text")
    return _folded(title, f"<pre>{_escaped(str(block.get('text') or ''))}</pre>")


_TAGS: Final = {
    "image": '<img src="{}" alt="image" style="max-width: 100%">',
    "audio": '<audio controls src="{}"></audio>',
    "video": '<video controls src="{}" style="max-width: 100%"></video>',
}
_MIME: Final = re.compile(r"(image|audio|video)/[\w.+-]+", re.ASCII)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/\s]+=*\s*", re.ASCII)


def _media(block: Block) -> str:
    """The data inline; what is elsewhere is named, not fetched."""
    kind = str(block["type"])
    fields = {**block, **data_or_url(str(block.get("url") or ""))}
    data, mime_type = str(fields.get("base64") or ""), str(fields.get("mime_type") or f"{kind}/*")
    if kind == "image" and mime_type == "image/*":
        mime_type = "image/png"  # browsers look at the data
    if _BASE64.fullmatch(data) and _MIME.fullmatch(mime_type):
        return _TAGS[kind].format(f"data:{mime_type};base64,{''.join(data.split())}")
    return _other(block)


def _other(block: Block) -> str:
    """One line about a block that has no picture: what it is, and where."""
    kind, extras = str(block.get("type")), block.get("extras") or {}
    url = str(block.get("url") or "")
    if _PAGE.fullmatch(url):
        return _link(f"{kind}: {url}", url)
    name = block.get("title") or extras.get("filename") or block.get("file_id") or ""
    size = f"{len(str(block.get('base64') or '')) * 3 // 4:,} bytes" if block.get("base64") else ""
    about = ", ".join(str(part) for part in (name, block.get("mime_type"), size) if part)
    return _code(f"{kind}: {about}" if about else kind)


def _result(block: Block) -> str:
    output = block.get("output")
    shown = output if isinstance(output, str) else _json(output)
    status = "" if block.get("status") in (None, "success") else f" ({block['status']})"
    return _folded(
        f"Result of {block.get('tool_call_id')}{status}", f"<pre>{_escaped(shown)}</pre>"
    )


def _non_standard(block: Block) -> str:
    value = block.get("value")
    kind = value.get("type") if isinstance(value, Mapping) else None
    return _folded(str(kind or "non_standard"), f"<pre>{_escaped(_json(value))}</pre>")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)


_BLOCKS: Final[dict[str, Callable[[Block], str]]] = {
    "text": _text,
    "reasoning": _reasoning,
    "image": _media,
    "audio": _media,
    "video": _media,
    "text-plain": _plain_text,
    "server_tool_result": _result,
    "non_standard": _non_standard,
}


# ---- tool calls ----------------------------------------------------------------------------------

#: The kinds of calls, and what the table says of each.
_CALLS: Final = {
    "tool_call": "",
    "tool_call_chunk": "arriving",
    "invalid_tool_call": "invalid",
    "server_tool_call": "by the provider",
    "server_tool_call_chunk": "by the provider, arriving",
}


def _flushed(rows: list[Block]) -> Iterable[str]:
    """The table of the calls so far, if there are any; `rows` is empty then."""
    if rows:
        head = "| tool | arguments | id | |\n|---|---|---|---|"
        yield "\n".join([head, *map(_row, rows)])
        rows.clear()


def _row(call: Block) -> str:
    args = call.get("args")
    shown = args if isinstance(args, str) else json.dumps(args, ensure_ascii=False, default=str)
    note = str(call.get("error") or _CALLS[str(call["type"])])
    cells = (_code(str(call.get("name") or "")), _code(shown), _code(str(call.get("id") or "")))
    return f"| {' | '.join(cells)} | {_escaped(note)} |"
