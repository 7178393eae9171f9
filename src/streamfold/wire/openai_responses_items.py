"""The items of OpenAI Responses and the blocks they become: what decoder and encoder agree on.

An item's own fields (its id, `phase`, `encrypted_content`, ...) ride in the `extras` of its blocks
under their own names. The status "completed" is left out but of reasoning, which has one with some
vendors only: the others have it when they are sent back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = [
    "CLIENT_CALLS",
    "RESULT_FIELDS",
    "SERVER_CALLS",
    "ServerCall",
    "citation",
    "item_fields",
    "native_annotation",
    "server_call",
]

Item = dict[str, Any]

#: Calls of the caller's own tools, and where each has its arguments.
CLIENT_CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}


class ServerCall(msgspec.Struct, frozen=True):
    """How the item of a call that the provider defines is told in blocks.

    `args`: the field that is the arguments; `parts`: the fields that make them up where there is
    no such field. `as_text`: the arguments travel as JSON text. `output`: the field with what came
    of it. `answers`: whether the item itself is the result too: the provider ran the call.
    """

    args: str = ""
    parts: tuple[str, ...] = ()
    as_text: bool = False
    output: str = ""
    answers: bool = True

    def arguments(self, item: Mapping[str, Any]) -> Any:
        """The arguments: an object, or its JSON text; None if there are none."""
        value = item.get(self.args)
        if isinstance(value, str | Mapping):
            return value
        made = {name: item[name] for name in self.parts if item.get(name) is not None}
        return made or item.get("arguments")  # xAI's first form of its web search

    def fields(self, item: Mapping[str, Any]) -> Item:
        """The fields that belong to neither the arguments nor the result."""
        taken = {self.output, *self.parts, *(("error",) if self.answers else ())}
        if isinstance(item.get(self.args), str | Mapping):
            taken.add(self.args)
        return {name: value for name, value in item_fields(item).items() if name not in taken}


SERVER_CALLS: Final[dict[str, ServerCall]] = {
    "apply_patch_call": ServerCall("operation", answers=False),
    "code_interpreter_call": ServerCall(parts=("code",), output="outputs"),
    "computer_call": ServerCall("action", ("actions",), answers=False),
    "file_search_call": ServerCall(parts=("queries",), output="results"),
    "image_generation_call": ServerCall(parts=("prompt",), output="result"),
    "local_shell_call": ServerCall("action", answers=False),
    "mcp_call": ServerCall("arguments", as_text=True, output="output"),
    "shell_call": ServerCall("action", answers=False),
    "tool_search_call": ServerCall("arguments", answers=False),
    "web_search_call": ServerCall("action", output="results"),
}
_UNKNOWN: Final = ServerCall("action", output="output")


def server_call(kind: str) -> ServerCall:
    """How items of the type `kind` are told; those that nobody knows yet like most others."""
    return SERVER_CALLS.get(kind, _UNKNOWN)


#: Items that are the result of such a call, apart from it, and where each has what came of it.
RESULT_FIELDS: Final = {
    "apply_patch_call_output": "output",
    "computer_call_output": "output",
    "local_shell_call_output": "output",
    "shell_call_output": "output",
    "tool_search_output": "tools",
}


def item_fields(item: Mapping[str, Any]) -> Item:
    """An item's fields that the standard blocks have no place for; null says nothing."""
    fields = {k: v for k, v in item.items() if k not in _STRUCTURE and v is not None}
    if fields.get("status") == "completed" and item.get("type") != "reasoning":
        del fields["status"]
    return fields


_STRUCTURE: Final = frozenset({"type", "role", "content", "summary"})


# ---- citations -----------------------------------------------------------------------------------

_URL: Final = "url_citation"


def _citation_names(kind: str) -> dict[str, str]:
    """The fields of an annotation that a citation block has, and their names there."""
    title = "title" if kind == _URL else "filename"
    return {"url": "url", title: "title", "start_index": "start_index", "end_index": "end_index"}


def citation(note: Mapping[str, Any]) -> Item:
    """An annotation as a citation block; what it says beyond that is in `extras`."""
    kind = note.get("type")
    if not isinstance(kind, str) or "citation" not in kind:
        return {"type": "non_standard_annotation", "value": dict(note)}
    names = _citation_names(kind)
    said = {k: v for k, v in note.items() if v is not None and k != "type"}
    read = {names[name]: value for name, value in said.items() if name in names}
    rest = {name: value for name, value in said.items() if name not in names}
    extras = rest if kind == _URL else {"type": kind, **rest}
    return {"type": "citation", **read, **({"extras": extras} if extras else {})}


def native_annotation(note: Mapping[str, Any]) -> Item | None:
    """The annotation that `citation` read; None for a note that this API cannot hold."""
    if note.get("type") == "non_standard_annotation":
        value = note.get("value")
        return dict(value) if isinstance(value, Mapping) else None
    extras = dict(note.get("extras") or {})
    kind = extras.pop("type", _URL)
    if kind == _URL and not note.get("url"):
        return None
    names = _citation_names(kind).items()
    native = {name: note[ours] for name, ours in names if note.get(ours) is not None}
    return {"type": kind, **native, **extras}
