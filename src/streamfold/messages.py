"""Messages: what is said to a model and what it says.

Messages are values: frozen, they compare by content, print, pickle, and turn into plain JSON and
back (`messages_to_dict`, `messages_from_dict`). `AIMessageChunk`, the message while it arrives, is
in `chunks.py`; it is imported from `streamfold.messages` too.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from .content import Block, ContentBlock, InvalidToolCall, ToolCall
from .errors import ConfigurationError
from .parts import standard_block
from .usage import UsageMetadata

if TYPE_CHECKING:
    from .chunks import AIMessageChunk
    from .history import (
        count_tokens_approximately,
        filter_messages,
        merge_message_runs,
        trim_messages,
    )

__all__ = [
    "AIMessage",
    "AIMessageChunk",
    "AnyMessage",
    "BaseMessage",
    "ContentBlock",
    "HumanMessage",
    "InvalidToolCall",
    "SystemMessage",
    "ToolCall",
    "ToolMessage",
    "UsageMetadata",
    "count_tokens_approximately",
    "filter_messages",
    "merge_message_runs",
    "message_from_dict",
    "messages_from_dict",
    "messages_to_dict",
    "trim_messages",
]

FinishReason: TypeAlias = str
Content: TypeAlias = str | list[Block]

_PLAIN_TEXT: Final = frozenset({"type", "text"})


class _Content(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    content: Any = ""


class BaseMessage(_Content, frozen=True, kw_only=True, omit_defaults=True):
    """What all messages share.

    `content` is a str or a list of content blocks (also of OpenAI's or the vendor's own parts).
    `extras` holds fields that only one vendor's messages have; they are sent to it unchanged.
    """

    id: str | None = None
    name: str | None = None
    response_metadata: dict[str, Any] = {}
    extras: dict[str, Any] = {}

    role: ClassVar[str] = ""

    def __post_init__(self) -> None:
        force_setattr(self, "content", _checked_content(self.content, type(self).__name__))

    @property
    def type(self) -> str:
        """`human`, `ai`, `system`, `tool` or `AIMessageChunk`."""
        return str(self.__struct_config__.tag)

    @property
    def text(self) -> str:
        """All visible text: the text blocks joined, with nothing between them."""
        if isinstance(self.content, str):
            return self.content
        return "".join(b.get("text") or "" for b in self.content if b.get("type") == "text")

    @property
    def content_blocks(self) -> list[Block]:
        """The content as a list of blocks of one shape for every provider."""
        if isinstance(self.content, str):
            return [{"type": "text", "text": self.content}] if self.content else []
        return [standard_block(block) for block in self.content]

    def _repr_markdown_(self) -> str:
        """How a notebook shows the message: see `display.py`."""
        from .display import message_markdown

        return message_markdown(self.content_blocks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `message_from_dict` makes an equal message of it."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data

    def _key(self) -> tuple[Any, ...]:
        """What `==` compares."""
        return (self.content_blocks, self.id, self.name, self.response_metadata, self.extras)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseMessage) or other.role != self.role:
            return NotImplemented
        return self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = [repr(self.content)]
        for field in self.__struct_fields__[1:]:
            value = getattr(self, field)
            if value is not None and value != {} and value != []:
                shown.append(f"{field}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class SystemMessage(BaseMessage, frozen=True, kw_only=True, tag="system"):
    """Instructions for the model. ``extras={"role": "developer"}`` sends them under that role."""

    role: ClassVar[str] = "system"


class HumanMessage(BaseMessage, frozen=True, kw_only=True, tag="human"):
    """What the user says."""

    role: ClassVar[str] = "user"


class ToolMessage(BaseMessage, frozen=True, kw_only=True, tag="tool"):
    """The result of a tool call, for the model. `tool_call_id` names the call it answers;
    `artifact` is kept for the program and never sent."""

    tool_call_id: str
    status: Literal["success", "error"] = "success"
    artifact: Any = None

    role: ClassVar[str] = "tool"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tool_call_id:
            raise ConfigurationError("ToolMessage.tool_call_id is empty: expected the call's id")

    def _key(self) -> tuple[Any, ...]:
        return (*super()._key(), self.tool_call_id, self.status, self.artifact)


class AIMessage(BaseMessage, frozen=True, kw_only=True, tag="ai"):
    """What the model says.

    `content` is a str when there is only text, else a list of standard blocks, tool calls
    included. `tool_calls` are complete and readable; `invalid_tool_calls` must not be run, their
    `error` says why. `finish_reason` is one of stop, length, tool_calls, content_filter, refusal,
    pause, cancelled, error (or the vendor's own word where it is none of these); the vendor's own
    field is in `response_metadata`.
    """

    tool_calls: list[ToolCall] = []
    invalid_tool_calls: list[InvalidToolCall] = []
    usage_metadata: UsageMetadata | None = None
    finish_reason: FinishReason | None = None

    role: ClassVar[str] = "assistant"

    def __post_init__(self) -> None:
        content = "" if self.content is None else self.content
        blocks = _checked_content(content, type(self).__name__)
        calls = [_call(c) for c in self.tool_calls]
        invalid = [_invalid(c) for c in self.invalid_tool_calls]
        blocks, calls, invalid = _join_calls(blocks, calls, invalid)
        force_setattr(self, "content", _plainest(blocks))
        force_setattr(self, "tool_calls", calls)
        force_setattr(self, "invalid_tool_calls", invalid)

    def to_dict(self) -> dict[str, Any]:
        data = super().to_dict()
        for derived in ("tool_calls", "invalid_tool_calls"):  # they are in `content`
            data.pop(derived, None)
        return data

    def _key(self) -> tuple[Any, ...]:
        return (*super()._key(), self.usage_metadata, self.finish_reason)


AnyMessage: TypeAlias = SystemMessage | HumanMessage | AIMessage | ToolMessage


def _checked_content(content: Any, owner: str) -> Content:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise ConfigurationError(
            f"{owner}.content is {type(content).__name__} ({_short(content)}): "
            "expected a str or a list of content blocks"
        )
    return [_checked_part(part, owner) for part in content]


def _checked_part(part: Any, owner: str) -> Block:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Mapping):
        return dict(part)
    raise ConfigurationError(
        f"{owner}.content has a part of type {type(part).__name__} ({_short(part)}): "
        "expected a str or a dict"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _call(call: Mapping[str, Any]) -> ToolCall:
    _check_call(call)
    if not isinstance(call.get("name"), str):
        raise ConfigurationError(f"tool call {_short(call)} has no name: expected a str")
    if not isinstance(call.get("args", {}), Mapping):
        raise ConfigurationError(
            f"tool call {call['name']!r} has args {_short(call.get('args'))}: expected a dict"
        )
    made: dict[str, Any] = {
        "name": call["name"],
        "args": dict(call.get("args", {})),
        "id": call.get("id"),
        "type": "tool_call",
    }
    if call.get("extras"):
        made["extras"] = call["extras"]
    return made  # type: ignore[return-value]


def _check_call(call: object) -> None:
    if not isinstance(call, Mapping):
        raise ConfigurationError(
            f"a tool call is {type(call).__name__} ({_short(call)}): expected a dict"
        )


def _invalid(call: Mapping[str, Any]) -> InvalidToolCall:
    _check_call(call)
    made: dict[str, Any] = {key: call.get(key) for key in ("name", "args", "id", "error")}
    made["type"] = "invalid_tool_call"
    if call.get("extras"):
        made["extras"] = call["extras"]
    return made  # type: ignore[return-value]


def _join_calls(
    content: Content, calls: list[ToolCall], invalid: list[InvalidToolCall]
) -> tuple[Content, list[ToolCall], list[InvalidToolCall]]:
    """One list of blocks that holds every call once, and the calls read from it."""
    blocks = content if isinstance(content, list) else []
    inside = [_call(b) for b in blocks if b.get("type") == "tool_call"]
    inside_bad = [_invalid(b) for b in blocks if b.get("type") == "invalid_tool_call"]
    new = [call for call in calls if not known_call(call, inside)]
    new_bad = [call for call in invalid if not known_call(call, inside_bad)]
    if new or new_bad:
        if isinstance(content, str):
            blocks = [{"type": "text", "text": content}] if content else []
        content = [*blocks, *(dict(c) for c in new), *(dict(c) for c in new_bad)]
    return content, inside + new, inside_bad + new_bad


def known_call(call: Mapping[str, Any], calls: Iterable[Mapping[str, Any]]) -> bool:
    """Whether `call` is one of `calls` already: by its id, or, having none, by all it says."""
    return any(
        other == call or (call.get("id") is not None and other.get("id") == call["id"])
        for other in calls
    )


def _plainest(content: Content) -> Content:
    """A str where the blocks are plain text and nothing else."""
    if isinstance(content, str):
        return content
    if all(block.keys() == _PLAIN_TEXT and block["type"] == "text" for block in content):
        return "".join(block["text"] for block in content)
    return content


def messages_to_dict(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as plain JSON data, one dict each with its `type`."""
    return [message.to_dict() for message in messages]


def messages_from_dict(data: Iterable[Mapping[str, Any]]) -> list[BaseMessage]:
    """The messages that `messages_to_dict` wrote. Raises ConfigurationError for anything else."""
    return [message_from_dict(item) for item in data]


def message_from_dict(data: Mapping[str, Any]) -> BaseMessage:
    """One message from plain data. Only these fixed types are made; nothing is looked up."""
    kind = data.get("type") if isinstance(data, Mapping) else None
    inner = data.get("data", data) if isinstance(data, Mapping) else data
    if not isinstance(inner, Mapping):  # LangChain nests the fields under "data"
        raise ConfigurationError(
            f"a stored message is {type(inner).__name__} ({_short(inner)}): expected a dict"
        )
    fields = dict(inner)
    if kind == "AIMessageChunk":
        from .chunks import AIMessageChunk

        return AIMessageChunk.from_dict(fields)
    if not isinstance(kind, str) or kind not in _BY_TYPE:
        raise ConfigurationError(
            f"message type {kind!r} is unknown: expected one of {', '.join(_BY_TYPE)}"
        )
    fields["type"] = kind
    try:
        return msgspec.convert(fields, _BY_TYPE[kind])
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"stored {kind} message is not readable: {error}") from None


_BY_TYPE: Final[dict[str, type[BaseMessage]]] = {
    "system": SystemMessage,
    "human": HumanMessage,
    "ai": AIMessage,
    "tool": ToolMessage,
}


# What stands on this module and is a name of it for users all the same: looked up late.
_LATE: Final = {
    "AIMessageChunk": "chunks",
    "count_tokens_approximately": "history",
    "filter_messages": "history",
    "merge_message_runs": "history",
    "trim_messages": "history",
}


def __getattr__(name: str) -> Any:
    home = _LATE.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__package__}.{home}"), name)
