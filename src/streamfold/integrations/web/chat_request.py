"""What a client of the gateway asks: the body of ``POST /v1/chat/completions``, read and checked.

Reference: https://platform.openai.com/docs/api-reference/chat/create. A field that says nothing (a
null, a penalty of zero) is left out. What only OpenAI's own service is concerned with (`user`,
`store`, ...) is left out for models that do not take it. Any other field goes to the model, which
knows whether its vendor takes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from ...coercion import coerce_messages, nearest, shown
from ...errors import ConfigurationError
from ...limits import DEFAULT_LIMITS
from ...messages import BaseMessage
from ...partial_json import nesting
from ...wire.openai_chat_request import BODY_FIELDS

__all__ = ["ChatBody", "RequestError", "blamed", "for_model", "read_body"]


class RequestError(Exception):
    """The request cannot be answered: the status and OpenAI's words for it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # there is none to leave out: this is no open network


class _Fields(msgspec.Struct):
    """The fields whose types OpenAI's reference gives and that are read or handed on by name."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None


class ChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """A request, read. `params` are for the call of the model; `tools` with `choice` for
    `bind_tools`; `metadata` for its callbacks."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    include_usage: bool = False
    tools: list[dict[str, Any]] = []
    choice: dict[str, Any] = {}
    params: dict[str, Any] = {}
    metadata: dict[str, Any] = {}

    def conversation(self, *, reasoning: bool) -> list[BaseMessage]:
        """The messages; with what the model thought in them where it wants that back. Raises
        RequestError that names the first that cannot be."""
        given = [_message(n, raw, reasoning) for n, raw in enumerate(self.messages)]
        try:
            return coerce_messages(given)
        except ConfigurationError as error:
            place = _first_bad(given)
            raise RequestError(str(error), param=f"messages[{place}]") from error


#: Read here, so not for the model.
_READ: Final = frozenset(
    "model messages stream stream_options n metadata tools tool_choice parallel_tool_calls".split()
)
_KNOWN: Final = frozenset(_Fields.__struct_fields__) | BODY_FIELDS
#: Values that say no more than the absence of the field, and not every vendor takes.
_SAYS_NOTHING: Final[dict[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "stop": ([],),
}
#: Between OpenAI and its customer; the answer is the same without.
_BOOKKEEPING: Final = frozenset(
    "prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier store user "
    "service_tier".split()
)
#: OpenAI's first form of tools, and what has no place in one answer.
_REFUSED: Final = {
    "functions": "use 'tools'",
    "function_call": "use 'tool_choice'",
    "echo": "it is not a field of chat completions",
    "best_of": "one answer is given",
}


def read_body(data: bytes) -> ChatBody:
    """The request in `data`. Raises RequestError, which names the field."""
    raw = _object(data)
    unknown = next((name for name in raw if name not in _KNOWN), None)
    if unknown is not None:
        hint = nearest(unknown, sorted(_KNOWN))
        raise RequestError(f"Unrecognized request argument: {unknown}{hint}", param=unknown)
    fields = _typed(raw)
    for name, instead in _REFUSED.items():
        if raw.get(name) is not None:
            raise RequestError(f"'{name}' is not supported: {instead}", param=name)
    if not fields.messages:
        raise RequestError("'messages' is empty: expected at least one", param="messages")
    if fields.n not in (None, 1):
        raise RequestError(f"'n' is {fields.n}: one answer is given, expected 1", param="n")
    if fields.stream_options is not None and not fields.stream:
        text = "'stream_options' is only allowed when 'stream' is true"
        raise RequestError(text, param="stream_options")
    options = fields.stream_options or _StreamOptions()
    return ChatBody(
        model=fields.model,
        messages=fields.messages,
        stream=bool(fields.stream),
        include_usage=bool(options.include_usage),
        tools=fields.tools or [],
        choice=_choice(fields),
        params={k: v for k, v in raw.items() if k not in _READ and _says_something(k, v)},
        metadata=fields.metadata or {},
    )


def for_model(params: Mapping[str, Any], takes: frozenset[str]) -> dict[str, Any]:
    """`params` without the bookkeeping that is no field of the vendor's."""
    return {k: v for k, v in params.items() if k not in _BOOKKEEPING or k in takes}


def blamed(error: ConfigurationError, body: ChatBody) -> str | None:
    """The field that a model complains of: its texts begin with the name of a parameter."""
    word = re.match(r"(?:parameter |the )?'?(\w+)", str(error))
    name = "" if word is None else word.group(1)
    if name == "max_tokens" and name not in body.params:
        name = "max_completion_tokens"
    if name in body.params or name in ("tools", "messages"):
        return name
    return "tools" if name in ("tool", "two") else "tool_choice" if "tool_choice" in name else None


def _object(data: bytes) -> dict[str, Any]:
    try:
        if nesting(data.decode(), DEFAULT_LIMITS.json_depth) > DEFAULT_LIMITS.json_depth:
            raise RequestError(f"the body is nested deeper than {DEFAULT_LIMITS.json_depth} levels")
        raw = orjson.loads(data)
    except ValueError as error:
        raise RequestError(f"the body is not JSON in UTF-8: {error}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"the body is {shown(raw)}: expected a JSON object")
    return raw


def _typed(raw: dict[str, Any]) -> _Fields:
    try:
        return msgspec.convert(raw, _Fields)
    except msgspec.ValidationError as error:
        # "Expected `bool`, got `str` - at `$.stream`", "... missing required field `model`"
        text, _, place = str(error).partition(" - at `$.")
        missing = re.search(r"field `(\w+)`", text)
        param = place.rstrip("`") or (missing.group(1) if missing else None)
        named = f"'{param}': " if place else ""
        raise RequestError(f"{named}{text}", param=param) from None


def _says_something(name: str, value: Any) -> bool:
    return value is not None and value not in _SAYS_NOTHING.get(name, ())


def _choice(fields: _Fields) -> dict[str, Any]:
    """The parameters of `bind_tools` beside the tools. A choice without tools is an error but for
    those that forbid or leave it."""
    choice: Any = fields.tool_choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function")
        choice = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(choice, str):
            text = f"'tool_choice' is {shown(fields.tool_choice)}: expected a function with a name"
            raise RequestError(text, param="tool_choice")
    if choice is not None and not fields.tools:
        if choice not in ("none", "auto"):
            text = "'tool_choice' is only allowed when 'tools' are specified"
            raise RequestError(text, param="tool_choice")
        choice = None
    told = {"tool_choice": choice, "parallel_tool_calls": fields.parallel_tool_calls}
    return {key: value for key, value in told.items() if value is not None}


# ---- messages ------------------------------------------------------------------------------------

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
#: What an SDK repeats of an answer and no API wants back.
_UNWANTED: Final = frozenset({"annotations", "images", "reasoning"})


def _message(number: int, raw: dict[str, Any], reasoning: bool) -> dict[str, Any]:
    role = raw.get("role")
    if role not in _ROLES:
        text = f"'messages[{number}].role' is {shown(role)}: expected one of {', '.join(_ROLES)}"
        raise RequestError(text, param=f"messages[{number}].role")
    message = {k: v for k, v in raw.items() if v is not None and k not in _UNWANTED}
    if role != "assistant":
        return message
    refusal = message.pop("refusal", None)  # which is all there is then
    if not reasoning:
        message.pop("reasoning_content", None)
    return {"content": refusal, **message}


def _first_bad(messages: list[dict[str, Any]]) -> int:
    """The number of the message that made them unreadable: the beginning before it is fine."""
    low, high = 0, len(messages) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            coerce_messages(messages[: middle + 1])
            low = middle + 1
        except ConfigurationError:
            high = middle
    return low
