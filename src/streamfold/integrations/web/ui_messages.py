"""What `useChat` sends: UI messages, read as messages for a model.

Reference: `convertToModelMessages` and `UIMessage` of the npm package `ai`, version 6. A message of
the assistant has the steps of an answer one after the other; each is an `AIMessage` here, followed
by the results of its calls. What `VercelVocabulary` sent along for the provider (signatures,
encrypted reasoning) comes back with the parts and goes back into the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from ...coercion import shown
from ...content import Block, data_or_url
from ...errors import ConfigurationError
from ...messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from .sse import json_line

__all__ = ["NAMESPACE", "messages_from_ui"]

#: Under this name ours travels in `providerMetadata`.
NAMESPACE: Final = "streamfold"

Part = Mapping[str, Any]

_ENDED: Final = frozenset({"output-available", "output-error", "output-denied"})


def messages_from_ui(messages: Sequence[Mapping[str, Any]]) -> list[BaseMessage]:
    """The conversation that the `messages` of a request of `useChat` hold.

    Left out is what no model reads: data parts, sources, calls that were not finished or that
    nothing has answered, and what tools of the provider did. Raises ConfigurationError that names
    what cannot be read: it comes from a client.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise ConfigurationError(f"messages is {shown(messages)}: expected a list of UI messages")
    read: list[BaseMessage] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role") if isinstance(message, Mapping) else None
        reader = _ROLES.get(role) if isinstance(role, str) else None
        if reader is None:
            raise ConfigurationError(
                f"{where} is {shown(message)}: expected an object with a role "
                f"({', '.join(_ROLES)}) and parts"
            )
        read.extend(reader(_parts(message, where)))
    return read


def _parts(message: Mapping[str, Any], where: str) -> list[Part]:
    parts = message.get("parts")
    if not isinstance(parts, list):
        raise ConfigurationError(f"{where}.parts is {shown(parts)}: expected a list of parts")
    for number, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, Mapping) else None
        needed = () if not isinstance(kind, str) else _needed(kind)
        if not isinstance(kind, str) or not all(isinstance(part.get(key), str) for key in needed):
            raise ConfigurationError(
                f"{where}.parts[{number}] is {shown(part)}: expected an object with a type"
                + "".join(f", and {key} as a string" for key in needed)
            )
    return parts


def _needed(kind: str) -> tuple[str, ...]:
    """The strings that a part of this type must have."""
    return ("toolCallId", "state") if kind.startswith("tool-") else _NEEDED.get(kind, ())


_NEEDED: Final = {
    "text": ("text",),
    "reasoning": ("text",),
    "file": ("url", "mediaType"),
    "dynamic-tool": ("toolName", "toolCallId", "state"),
}


# ---- the roles -----------------------------------------------------------------------------------


def _system(parts: list[Part]) -> Iterator[BaseMessage]:
    yield SystemMessage("".join(part["text"] for part in parts if part["type"] == "text"))


def _user(parts: list[Part]) -> Iterator[BaseMessage]:
    yield HumanMessage([block for part in parts for block in _block(part)])


def _assistant(parts: list[Part]) -> Iterator[BaseMessage]:
    for is_boundary, step in groupby(parts, key=lambda part: part["type"] == "step-start"):
        if not is_boundary:
            yield from _step(list(step))


def _step(parts: list[Part]) -> Iterator[BaseMessage]:
    blocks = [block for part in parts for block in _block(part)]
    makers = {_ours(part).get("provider") for part in parts} - {None}
    if blocks:
        metadata = {"model_provider": makers.pop()} if len(makers) == 1 else {}
        yield AIMessage(blocks, response_metadata=metadata)
    for part in parts:
        if _is_answered(part):
            yield _result(part)


_ROLES: Final[dict[str, Callable[[list[Part]], Iterator[BaseMessage]]]] = {
    "system": _system,
    "user": _user,
    "assistant": _assistant,
}


# ---- the parts -----------------------------------------------------------------------------------


def _block(part: Part) -> Iterator[Block]:
    """The content block that a part stands for, if a model reads it."""
    extras = _ours(part).get("extras")
    more = {"extras": dict(extras)} if isinstance(extras, Mapping) else {}
    if part["type"] == "text":
        yield {"type": "text", "text": part["text"], **more}
    elif part["type"] == "reasoning":
        yield {"type": "reasoning", "reasoning": part["text"], **more}
    elif part["type"] == "file":
        yield _file(part)
    elif _is_answered(part):
        given = part.get("input")
        args = given if isinstance(given, Mapping) else {}
        call = {"name": _tool_name(part), "args": dict(args), "id": part["toolCallId"]}
        yield {"type": "tool_call", **call, **more}


def _file(part: Part) -> Block:
    mime = part["mediaType"]
    kind = mime.partition("/")[0]
    named = {"extras": {"filename": part["filename"]}} if part.get("filename") else {}
    kind = kind if kind in ("image", "audio", "video") else "file"
    return {"type": kind, "mime_type": mime, **data_or_url(part["url"]), **named}


def _is_answered(part: Part) -> bool:
    """Whether it is a call of a tool of ours that has its result."""
    is_tool = part["type"] == "dynamic-tool" or part["type"].startswith("tool-")
    return is_tool and part["state"] in _ENDED and not part.get("providerExecuted")


def _tool_name(part: Part) -> str:
    name = part["toolName"] if part["type"] == "dynamic-tool" else part["type"][len("tool-") :]
    return str(name)


def _result(part: Part) -> ToolMessage:
    if part["state"] == "output-available":
        output = part.get("output")
        text = output if isinstance(output, str) else json_line(output).decode()
        return ToolMessage(text, tool_call_id=part["toolCallId"])
    denied = "The user did not allow it."
    text = str(part.get("errorText") or denied)
    return ToolMessage(text, tool_call_id=part["toolCallId"], status="error")


def _ours(part: Part) -> Mapping[str, Any]:
    """What we sent along with the part; the SDK keeps it under one of two names."""
    for key in ("providerMetadata", "callProviderMetadata"):
        metadata = part.get(key)
        found = metadata.get(NAMESPACE) if isinstance(metadata, Mapping) else None
        if isinstance(found, Mapping):
            return found
    return {}
