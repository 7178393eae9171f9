"""What callers may pass as input, as a list of messages.

`coerce_messages` takes a str, one message or one dict, or a sequence of messages, dicts,
``(role, content)`` pairs and strings. Whatever it cannot read is a ConfigurationError that names
the value and what was expected, raised before anything is sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from .errors import ConfigurationError
from .messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_from_dict,
)
from .tool_calls import judge

__all__ = ["MessageInput", "coerce_messages"]

#: What a call of a model takes as its input.
MessageInput: TypeAlias = str | BaseMessage | Mapping[str, Any] | Sequence[Any]

Fields: TypeAlias = dict[str, Any]


def coerce_messages(value: MessageInput, *, orphan_results: bool = False) -> list[BaseMessage]:
    """The messages that `value` stands for.

    A tool message must answer a call made by an earlier message of the list, unless
    `orphan_results` (for APIs that keep the conversation themselves). Keys of a dict that no
    message has go to its `extras`, and with them to the provider. Raises ConfigurationError.
    """
    messages: list[BaseMessage] = []
    for item in _items(value):
        messages.append(_message(item, messages))
    if not orphan_results:
        _check_results(messages)
    return messages


def shown(value: object) -> str:
    """`value` as an error message shows it: its repr, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: object, options: Iterable[str]) -> str:
    """ " (did you mean ...?)" if one of `options` is near `word`, else nothing."""
    text = str(word)
    options = list(options)
    found = difflib.get_close_matches(text, options, n=1) or difflib.get_close_matches(
        text.lower(), options, n=1
    )
    return f" (did you mean {found[0]!r}?)" if found else ""


# ---- the shapes of input -------------------------------------------------------------------------


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, str | BaseMessage | Mapping):
        return [value]
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray | memoryview):
        raise ConfigurationError(
            f"the input is {type(value).__name__} ({shown(value)}): expected a str, a message, "
            "a dict, or a list of messages, dicts, (role, content) pairs and strings"
        )
    if not value:
        raise ConfigurationError("the input is an empty list: expected at least one message")
    if _is_bare_pair(value):
        # Two human messages, the first of which says "user", are never meant.
        raise ConfigurationError(
            f"the input {shown(value)} reads like one (role, content) pair: put it in a list, "
            f"[{shown(tuple(value))}], or give messages"
        )
    return value


def _is_bare_pair(value: Sequence[Any]) -> bool:
    return (
        len(value) == 2
        and isinstance(value[0], str)
        and value[0] in _ROLES
        and not isinstance(value[1], Mapping | BaseMessage | tuple)
    )


def _message(item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    if isinstance(item, BaseMessage):
        return _whole(item)
    if isinstance(item, str):
        return HumanMessage(item)
    if isinstance(item, Mapping):
        return _from_dict(item, earlier)
    if isinstance(item, tuple | list):
        return _from_pair(item, earlier)
    raise ConfigurationError(
        f"a message is {type(item).__name__} ({shown(item)}): expected a message, a dict with "
        "'role' and 'content', a (role, content) pair or a str"
    )


def _whole(message: BaseMessage) -> BaseMessage:
    """A chunk as the message it has become; any other message as it is."""
    finish: Callable[[], BaseMessage] | None = getattr(message, "to_message", None)
    return message if finish is None else finish()


def _from_pair(pair: Sequence[Any], earlier: list[BaseMessage]) -> BaseMessage:
    if len(pair) != 2 or not isinstance(pair[0], str):
        raise ConfigurationError(
            f"a message is a {type(pair).__name__} of {len(pair)} ({shown(pair)}): "
            "expected a (role, content) pair"
        )
    return _of_role(pair[0], {"content": pair[1]}, pair, earlier)


def _from_dict(item: Mapping[str, Any], earlier: list[BaseMessage]) -> BaseMessage:
    fields = dict(item)
    if "role" not in fields and (fields.get("type") == "AIMessageChunk" or "data" in fields):
        return _whole(message_from_dict(fields))  # as `to_dict`, or LangChain, stored it
    role = fields.pop("role", None)
    kind = fields.pop("type", None)
    role = kind if role is None else role
    if not isinstance(role, str):
        raise ConfigurationError(
            f"the message {shown(item)} has no role: expected 'role' (one of "
            f"{', '.join(_ROLES)}) and 'content'"
        )
    return _of_role(role, fields, item, earlier)


def _of_role(role: str, fields: Fields, item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    make = _ROLES.get(role)
    if make is None:
        raise ConfigurationError(
            f"the role {role!r} of {shown(item)} is unknown: expected one of "
            f"{', '.join(_ROLES)}{nearest(role, _ROLES)}"
        )
    return make(fields, item, earlier)


# ---- the roles -----------------------------------------------------------------------------------


def _human(fields: Fields, item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    return HumanMessage(_content(fields, item), **_common(fields, HumanMessage, item))


def _system(fields: Fields, item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    return SystemMessage(_content(fields, item), **_common(fields, SystemMessage, item))


def _developer(fields: Fields, item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    extras = {**(fields.pop("extras", None) or {}), "role": "developer"}
    return _system({**fields, "extras": extras}, item, earlier)


def _tool(fields: Fields, item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    content = _content(fields, item)
    if "tool_name" in fields:  # Ollama's word
        fields["name"] = fields.pop("tool_name")
    call_id = fields.get("tool_call_id")
    if call_id is None and not _misspelt("tool_call_id", fields):
        call_id = fields["tool_call_id"] = _next_call(fields.get("name"), earlier)
    if not isinstance(call_id, str) or not call_id:
        raise ConfigurationError(
            f"the tool message {shown(item)} has the tool_call_id {call_id!r}: expected the id of "
            f"the call it answers, as a str under 'tool_call_id'{_misspelt('tool_call_id', fields)}"
        )
    if fields.get("status") not in (None, "success", "error"):
        raise ConfigurationError(
            f"the tool message {shown(item)} has the status {fields['status']!r}: "
            "expected 'success' or 'error'"
        )
    return ToolMessage(content, **_common(fields, ToolMessage, item))


def _next_call(name: str | None, earlier: list[BaseMessage]) -> str | None:
    """The call that a result without an id answers, as Ollama's results have none: of those made
    last, the first that nothing has answered, by its name if the result has one."""
    answered = {message.tool_call_id for message in earlier if isinstance(message, ToolMessage)}
    calls = next(filter(None, map(_calls_of, reversed(earlier))), [])
    left = (call for call in calls if call["id"] not in answered and name in (None, call["name"]))
    return next((call["id"] for call in left), None)


def _function(fields: Fields, item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    """OpenAI's first form of tool results: they name the function instead of a call."""
    name = fields.get("name")
    for message in reversed(earlier):
        for call in reversed(_calls_of(message)):
            if call.get("name") == name:
                return _tool({**fields, "tool_call_id": call.get("id")}, item, earlier)
    raise ConfigurationError(
        f"the function message {shown(item)} names {name!r}: expected a function that an earlier "
        "assistant message called"
    )


def _assistant(fields: Fields, item: Any, earlier: list[BaseMessage]) -> BaseMessage:
    told = {key for key, value in fields.items() if value is not None} - {"id", "name"}
    if "content" not in fields and not told:
        raise _no_content(item, fields)
    content = fields.pop("content", None)
    calls, invalid = _tool_calls(fields.pop("tool_calls", None), item)
    legacy = fields.pop("function_call", None)
    if legacy is not None:
        _sort_call({"function": legacy}, calls, invalid, item)
    for place, call in enumerate([*calls, *invalid]):
        if call["id"] is None:  # Ollama's have none; results need one to name
            call["id"] = f"call_{len(earlier)}_{place}" if place else f"call_{len(earlier)}"
    invalid.extend(fields.pop("invalid_tool_calls", None) or ())
    return AIMessage(
        "" if content is None else content,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        **_common(fields, AIMessage, item),
    )


Maker: TypeAlias = Callable[[Fields, Any, list[BaseMessage]], BaseMessage]

_ROLES: Final[dict[str, Maker]] = {
    "human": _human,
    "user": _human,
    "ai": _assistant,
    "assistant": _assistant,
    "system": _system,
    "developer": _developer,
    "tool": _tool,
    "function": _function,
}


# ---- the fields of a dict ------------------------------------------------------------------------


def _content(fields: Fields, item: Any) -> Any:
    if "content" not in fields:
        raise _no_content(item, fields)
    content = fields.pop("content")
    if content is None:
        raise ConfigurationError(
            f"the message {shown(item)} has the content None: expected a str or a list of content "
            "blocks (only assistant messages may have none)"
        )
    return content


def _no_content(item: Any, fields: Fields) -> ConfigurationError:
    return ConfigurationError(
        f"the message {shown(item)} has no content: expected a str or a list of content blocks "
        f"under 'content'{_misspelt('content', fields)}"
    )


def _misspelt(key: str, fields: Fields) -> str:
    found = difflib.get_close_matches(key, fields, n=1)
    return f", not {found[0]!r}" if found and key not in fields else ""


def _common(fields: Fields, kind: type[BaseMessage], item: Any) -> Fields:
    """The constructor's arguments; what the class does not know goes to `extras`. A key whose
    value is None says nothing."""
    known = kind.__struct_fields__
    own = {k: v for k, v in fields.items() if k in known and v is not None}
    rest = {k: v for k, v in fields.items() if k not in known and v is not None}
    for key in ("id", "name"):
        if not isinstance(own.get(key, ""), str):
            raise ConfigurationError(
                f"the message {shown(item)} has the {key} {own[key]!r}: expected a str"
            )
    if rest:
        own["extras"] = {**own.get("extras", {}), **rest}
    return own


# ---- tool calls ----------------------------------------------------------------------------------


def _tool_calls(value: Any, item: Any) -> tuple[list[Any], list[Any]]:
    """Calls in the standard form or OpenAI's, sorted into readable and invalid ones."""
    calls: list[Any] = []
    invalid: list[Any] = []
    if value is None:
        return calls, invalid
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ConfigurationError(
            f"the message {shown(item)} has the tool_calls {shown(value)}: expected a list"
        )
    for call in value:
        _sort_call(call, calls, invalid, item)
    return calls, invalid


def _sort_call(call: Any, calls: list[Any], invalid: list[Any], item: Any) -> None:
    shape = _call_shape(call)
    if shape is None:
        raise ConfigurationError(
            f"the message {shown(item)} has the tool call {shown(call)}: expected a dict with "
            "'name', 'args' and 'id', or OpenAI's with 'id' and 'function'"
        )
    name, args, rest = shape
    made: Fields = {"name": name, "args": args, "id": call.get("id"), "extras": rest}
    if isinstance(args, Mapping):
        calls.append(made)
        return
    raw = "" if args is None else str(args)
    read, error = judge(raw, name, "tool_calls")
    if read is not None:
        calls.append({**made, "args": read})
    else:
        invalid.append({**made, "args": raw, "error": error})


def _call_shape(call: Any) -> tuple[Any, Any, Fields] | None:
    """Name, arguments and further fields of a tool call; None if it is none."""
    if not isinstance(call, Mapping):
        return None
    function = call.get("function") or call.get("custom")
    if isinstance(function, Mapping):
        args = function.get("arguments", function.get("input"))
        own = ("id", "function", "custom")
        # The decoder keeps the same: any type but the usual one.
        rest = {k: v for k, v in call.items() if k not in own and v not in (None, "function")}
        return function.get("name"), args, rest
    if "name" not in call:
        return None
    return call["name"], call.get("args", call.get("arguments")), dict(call.get("extras") or {})


# ---- results and their calls ---------------------------------------------------------------------


def _check_results(messages: list[BaseMessage]) -> None:
    """Every tool message answers a call made before it."""
    known: set[str] = set()
    for position, message in enumerate(messages):
        if isinstance(message, AIMessage):
            known.update(_call_ids(message))
        elif isinstance(message, ToolMessage) and message.tool_call_id not in known:
            raise ConfigurationError(
                f"message {position} is the result of the tool call {message.tool_call_id!r}: "
                f"expected a call of that id in an earlier message"
                f"{nearest(message.tool_call_id, known)}"
            )


def _calls_of(message: BaseMessage) -> list[Mapping[str, Any]]:
    if not isinstance(message, AIMessage):
        return []
    return [*message.tool_calls, *message.invalid_tool_calls]


def _call_ids(message: AIMessage) -> Iterator[str]:
    """The ids of all calls, in whatever shape: native content blocks of any vendor count."""
    if isinstance(message.content, list):
        for block in message.content:
            yield from _ids_in(block)
            for inner in block.values():  # Bedrock's `toolUse`, Gemini's `functionCall`, ...
                if isinstance(inner, Mapping):
                    yield from _ids_in(inner)


def _ids_in(block: Mapping[str, Any]) -> Iterator[str]:
    for key in ("id", "call_id", "toolUseId"):
        if isinstance(block.get(key), str):
            yield block[key]
