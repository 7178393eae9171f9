"""The calls among the items of an OpenAI Responses answer: tool calls, and those of the provider.

A call is told in pieces (its arguments) or only when it is done, with all that came of it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ..errors import StreamProtocolError
from .codec import Decoder as BaseDecoder
from .codec import text_or_none
from .openai_responses_items import CLIENT_CALLS, RESULT_FIELDS, Item, item_fields, server_call

__all__ = ["CallDecoder", "as_list", "as_object", "place"]


class CallDecoder(BaseDecoder):
    """The part of the decoder that reads calls and their results."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._items: dict[Any, Item] = {}  # output index -> item, as it was last told
        self._given: set[Any] = set()  # keys of what has been told, at least in part
        self._ids: dict[Any, str] = {}  # `call_id` -> id of the server tool call
        self._keys: dict[Any, list[tuple[str, Any]]] = {}  # output index -> its blocks, to end them

    def _is_new(self, key: Any) -> bool:
        """Whether `key` is told for the first time; it is from here on."""
        if key in self._given:
            return False
        self._given.add(key)
        return True

    def _number(self, kind: str, key: Any, *, quiet: bool = False) -> int:
        if isinstance(key, tuple) and (kind, key) not in self._open:
            self._keys.setdefault(key[0], []).append((kind, key))
        return super()._number(kind, key, quiet=quiet)

    def end_blocks(self, index: Any) -> None:
        """All blocks of the item at `index` are complete, calls excepted: they end at the end."""
        for kind, key in self._keys.pop(index, ()):
            self.end_block(kind, key)

    # ---- items -----------------------------------------------------------------------------------

    def _open_client_call(self, index: Any, item: Item) -> None:
        extras = {k: v for k, v in item_fields(item).items() if k not in _CALL_FIELDS}
        extras.pop("status", None)  # it is in progress, of course
        if item["type"] == "custom_tool_call":
            extras["type"] = "custom"
        self.tool_call(
            index=index,
            id=text_or_none(item.get("call_id")),
            name=text_or_none(item.get("name")),
            extras=extras or None,
        )

    def _client_call_done(self, index: Any, item: Item) -> None:
        self._all_args(index, "tool_call", item.get(CLIENT_CALLS[item["type"]]))
        told = self._items[index]
        fields = {k: v for k, v in item_fields(item).items() if k not in _CALL_FIELDS}
        new = {k: v for k, v in fields.items() if k == "status" or told.get(k) != v}
        if new:
            self.tool_call(index=index, extras=new)

    def _open_server_call(self, index: Any, item: Item) -> None:
        id = text_or_none(item.get("id"))
        self.tool_call(
            index=index,
            id=id,
            name=str(item["type"]).removesuffix("_call"),
            kind="server_tool_call",
        )
        if id and text_or_none(item.get("call_id")):
            self._ids[item["call_id"]] = id

    def _server_call_done(self, index: Any, item: Item) -> None:
        shape = server_call(item["type"])
        if (index, "code") in self._given:
            self.tool_call(index=index, args='"}', kind="server_tool_call")
        else:
            self._all_args(index, "server_tool_call", shape.arguments(item))
        fields = {k: v for k, v in shape.fields(item).items() if k != "id"}
        if fields:
            self.tool_call(index=index, extras=fields, kind="server_tool_call")
        if item["type"] == "image_generation_call":
            self._image(index, item.get("result"), item)
        if shape.answers:
            self._result(index, item, shape.output)

    def _result(self, index: Any, item: Item, field: str) -> None:
        data = {"tool_call_id": item.get("id"), "status": _success(item)}
        if item.get(field) is not None and item["type"] != "image_generation_call":
            data["output"] = item[field]
        if item.get("error") is not None:
            data["extras"] = {"error": item["error"]}
        self.block("server_tool_result", data, key=(index, "result"))

    def _image(self, index: Any, data: Any, told: Item) -> None:
        """An image, or for the time being a sketch of it, which the next one replaces."""
        if isinstance(data, str) and data:
            form = text_or_none(told.get("output_format")) or "png"
            block = {
                "base64": data,
                "mime_type": f"image/{_IMAGE_TYPES.get(form, form)}",
                "extras": {"id": self._items[index].get("id")},
            }
            self.block("image", block, key=(index, "image"))

    def _all_args(self, index: Any, kind: str, args: Any) -> None:
        """The arguments, if none of them have come in pieces."""
        if args is not None and self._is_new((index, "args")):
            # Not msgspec, which knows no halves of surrogate pairs.
            text = args if isinstance(args, str) else json.dumps(args)
            self.tool_call(index=index, args=text, kind=kind)

    def _result_item(self, index: Any, item: Item) -> None:
        """What came of a call, as an item of its own."""
        field = RESULT_FIELDS[item["type"]]
        call_id = text_or_none(item.get("call_id"))
        data = {
            "tool_call_id": self._ids.get(call_id) or call_id or item.get("id"),
            "status": _success(item),
            "output": item.get(field),
            "extras": {k: v for k, v in item.items() if k != field and v is not None},
        }
        self.block("server_tool_result", data, key=(index, "item"))

    # ---- pieces ----------------------------------------------------------------------------------

    def _args_delta(self, payload: dict[str, Any]) -> None:
        index, delta = place(payload), payload.get("delta")
        kind = self._call_kind(index)
        if kind is None:
            self.fail(StreamProtocolError(f"arguments for output item {index!r}, which is no call"))
        elif isinstance(delta, str) and delta:
            self._given.add((index, "args"))
            self.tool_call(index=index, args=delta, kind=kind)

    def _args_done(self, payload: dict[str, Any]) -> None:
        index = place(payload)
        kind = self._call_kind(index)
        if kind is not None:
            self._all_args(index, kind, payload.get("arguments", payload.get("input")))

    def _call_kind(self, index: Any) -> str | None:
        """The kind of block of the call at `index`; None if there is no call."""
        native = str(self._items.get(index, {}).get("type"))
        if native in CLIENT_CALLS:
            return "tool_call"
        return "server_tool_call" if native.endswith("_call") else None

    def _code_delta(self, payload: dict[str, Any]) -> None:
        """Code for the code interpreter, written as the JSON that its arguments are told as."""
        index, delta = place(payload), payload.get("delta")
        if isinstance(delta, str) and delta and self._call_kind(index) == "server_tool_call":
            start = '{"code":"' if self._is_new((index, "code")) else ""
            args = start + json.dumps(delta)[1:-1]
            self.tool_call(index=index, args=args, kind="server_tool_call")

    def _partial_image(self, payload: dict[str, Any]) -> None:
        if place(payload) in self._items:
            self._image(place(payload), payload.get("partial_image_b64"), payload)


def as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def place(payload: dict[str, Any], name: str = "output_index") -> int | None:
    value = payload.get(name)
    return value if isinstance(value, int) else None


def _success(item: Item) -> str:
    failed = item.get("status") in ("failed", "incomplete") or item.get("error") is not None
    return "error" if failed else "success"


_CALL_FIELDS: Final = frozenset({"call_id", "name", "arguments", "input"})
_IMAGE_TYPES: Final = {"jpg": "jpeg", "svg": "svg+xml"}
