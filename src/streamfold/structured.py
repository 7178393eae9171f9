"""Structured output: the answer as an object of a type, by the way the model does best.

`json_schema` has the provider hold the answer to the schema, `function_calling` has the model call
a tool whose arguments are the object, `json_mode` asks for JSON and trusts the prompt. A bad answer
is an error with the message attached, never None.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, TypedDict, get_origin

from .chunks import AIMessageChunk, fold_events
from .coercion import shown
from .deltas import BlockStart, TextDelta, ToolCallDelta
from .errors import ConfigurationError, StructuredOutputError
from .json_fields import Field, FieldReader
from .messages import AIMessage
from .partial_json import best_reading, strict_value
from .runnables import FieldStreams
from .schema import (
    Inexpressible,
    Rules,
    convert,
    describe,
    is_object_type,
    is_typeddict,
    rules_of,
    schema_of,
    translate,
    without_nulls,
)
from .stored import Stored
from .tool_calls import Call, CallBook

__all__ = [
    "Method",
    "RawAndParsed",
    "StructuredModel",
    "Target",
    "response_format",
    "structured",
]

Method = Literal["json_schema", "function_calling", "json_mode"]

_METHODS: Final = ("json_schema", "function_calling", "json_mode")
#: Dialects whose providers hold answers to a schema, where no profile says so.
_BY_SCHEMA: Final = frozenset({"openai_chat", "openai_responses", "gemini", "ollama"})
#: Dialects in which a model that thinks cannot be made to call a tool.
_THINKS_OR_CALLS: Final = frozenset({"anthropic", "bedrock"})


class RawAndParsed(TypedDict):
    """What `include_raw=True` gives."""

    raw: AIMessage
    parsed: Any
    parsing_error: Exception | None


class Target:
    """What the answer shall be: the name and schema for the provider, the type for the caller."""

    def __init__(self, schema: Any) -> None:
        self.type: Any = None
        if isinstance(schema, Mapping):
            self.schema = _given_schema(dict(schema))
        elif is_object_type(get_origin(schema) or schema):
            self.type = schema
            self.schema = schema_of(schema)
        else:
            raise ConfigurationError(
                f"schema is {shown(schema)}: expected a pydantic model, a TypedDict, a dataclass, "
                "a msgspec Struct or a JSON schema"
            )
        title = self.schema.get("title") or getattr(schema, "__name__", "answer")
        self.name = re.sub(r"[^a-zA-Z0-9_-]", "_", str(title))[:64]
        self.description = self.schema.get("description") or describe(self.type)

    def read(self, value: Any) -> Any:
        """`value` as the caller wants it. Raises ValueError if it does not fit."""
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, got {type(value).__name__}")
        value = without_nulls(value, self.schema)
        if self.type is None or is_typeddict(self.type):
            return value
        return convert(value, self.type)


def _given_schema(given: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema, bare or as the parameters of a function."""
    if isinstance(given.get("function"), Mapping):
        given = dict(given["function"])
    if "parameters" in given:
        inner = {**given["parameters"], "title": given.get("name", "answer")}
        given = {"description": given.get("description", ""), **inner}
    if given.get("type", "object") != "object":
        raise ConfigurationError(
            f"schema has the type {shown(given['type'])}: expected an object, for that is what "
            "structured output gives"
        )
    return given


# ---- what is said to the model -------------------------------------------------------------------


def structured(
    model: Any, schema: Any, method: Method | None, include_raw: bool, strict: bool | None
) -> StructuredModel:
    """`model` with answers of `schema`; see `ChatModel.with_structured_output`.

    Where no method is asked for and the best one cannot say the schema, the model is given a tool:
    calls are not held to its schema, so it can be any. Raises ConfigurationError for what cannot be
    asked, with the part of the schema that it is about.
    """
    if method is not None and method not in _METHODS:
        raise ConfigurationError(
            f"method is {method!r}: expected one of {', '.join(map(repr, _METHODS))}"
        )
    target = Target(schema)
    chosen = method or best_method(model.profile, model.dialect)
    try:
        bound = _bound(model, target, chosen, strict)
    except Inexpressible:
        if method is not None or model.profile.get("tool_calling") is False:
            raise
        chosen = "function_calling"
        bound = _bound(model, target, chosen, strict)
    return StructuredModel(bound, target, chosen, include_raw)


def response_format(target: Target, dialect: str, strict: bool | None = None) -> dict[str, Any]:
    """What a request says for answers in the form of `target`. Raises ConfigurationError for what
    cannot be asked."""
    described = _described(target, strict, rules_of(dialect))
    return {"type": "json_schema", "json_schema": described}


def best_method(profile: Mapping[str, Any], dialect: str) -> Method:
    """The method that suits a model best: as its profile says, else as its API usually can."""
    if profile.get("structured_output"):
        return "json_schema"
    if "structured_output" in profile and profile.get("tool_calling"):
        return "function_calling"
    return "json_schema" if dialect in _BY_SCHEMA else "function_calling"


def _bound(model: Any, target: Target, method: Method, strict: bool | None) -> Any:
    if method == "json_mode":
        if strict:
            raise ConfigurationError("json_mode knows no schema, so it cannot be strict")
        return model.bind(response_format={"type": "json_object"})
    if method == "json_schema":
        return model.bind(response_format=response_format(target, model.dialect, strict))
    tool = {"type": "object", **target.schema, "title": target.name}
    if target.description:
        tool["description"] = target.description
    choice = target.name if _can_be_made_to_call(model) else None
    return model.bind_tools([tool], tool_choice=choice, strict=strict)


def _described(target: Target, strict: bool | None, rules: Rules) -> dict[str, Any]:
    described: dict[str, Any] = {"name": target.name, "schema": target.schema}
    if target.description:
        described["description"] = target.description
    if not rules.optional:
        described["schema"] = translate(target.schema, rules, name=target.name)
        return described
    try:
        if strict is not False:
            described["schema"] = translate(target.schema, rules, name=target.name)
    except Inexpressible:
        if strict:
            raise
        strict = False
    return {**described, "strict": strict is not False}


def _can_be_made_to_call(model: Any) -> bool:
    """Whether the provider takes a forced call; else the model is trusted to make it."""
    if model.dialect == "ollama" or model.profile.get("tool_choice") is False:
        return False
    if model.dialect not in _THINKS_OR_CALLS:
        return True
    thinking = model.thinking
    if isinstance(thinking, Mapping):
        return thinking.get("type") not in ("enabled", "adaptive")
    return model.reasoning_effort in (None, "none")


# ---- the model -----------------------------------------------------------------------------------


class StructuredModel(FieldStreams):
    """A model whose answers are objects. Made by `with_structured_output`."""

    @property
    def _grows(self) -> bool:
        return True

    def __init__(self, model: Any, target: Target, method: Method, include_raw: bool) -> None:
        self._model = model
        self._target = target
        self._method: Method = method
        self._include_raw = include_raw
        self._config = model._config

    @property
    def model(self) -> Any:
        """The model, told to answer so: what it says is for `read`."""
        return self._model

    @property
    def method(self) -> Method:
        """How it was told."""
        return self._method

    def read(self, message: AIMessage) -> Any:
        """The object in an answer of `model`. Raises StructuredOutputError if it does not fit."""
        return self._parsed(message)

    def read_partial(self, full: AIMessageChunk) -> dict[str, Any] | None:
        """The object in an answer that is still arriving, as far as it has come."""
        return _partial(self._raw(full))

    def __repr__(self) -> str:
        return f"StructuredModel({self._model!r}, {self._target.name!r}, method={self._method!r})"

    def with_config(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """A structured model whose runs have this configuration."""
        return self._on(self._model.with_config(config, **kwargs))

    def bind(self, **kwargs: Any) -> Any:
        """A structured model that gives `kwargs` to every call."""
        return self._on(self._model.bind(**kwargs))

    def _on(self, model: Any) -> StructuredModel:
        return StructuredModel(model, self._target, self._method, self._include_raw)

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        """The object; or the message that it is read from, where that is part of the result."""
        identity = {
            **self._model._stored(config, kwargs).identity,
            "schema": self._target.schema,
            "method": self._method,
            "include_raw": self._include_raw,
        }
        if self._include_raw:
            return Stored(identity=identity, keep=lambda both: both["raw"], restore=self._result)
        return Stored(identity=identity, type=self._target.type)

    async def aclose(self) -> None:
        await self._model.aclose()

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The object that the model answers with; `RawAndParsed` with `include_raw`.

        Raises StructuredOutputError, with the message in `raw`, for an answer that does not fit.
        """
        return self._result(await self._model.ainvoke(input, config, **kwargs))

    def _stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[Any], None]]:
        start = self._model._stream(input, config, **kwargs)
        return lambda: self._growing(start)

    async def _growing(
        self, start: Callable[[], AsyncGenerator[list[AIMessageChunk], None]]
    ) -> AsyncGenerator[list[Any], None]:
        """Partial objects while the answer arrives, then the validated one.

        They are spaced so that the whole is read and parsed a bounded number of times: each waits
        until an eighth more has arrived than at the one before, in chunks and in characters.
        """
        full = fold_events(())
        shown: Any = None
        count = due_count = due = 0
        async with aclosing(start()) as batches:
            async for batch in batches:
                for chunk in batch:
                    full = full + chunk
                count += len(batch)
                if count < due_count:
                    continue
                due_count = count + count // 8
                raw = self._raw(full)
                if len(raw) < due:
                    continue
                due = len(raw) + len(raw) // 8
                value = _partial(raw)
                if value is not None and value != shown:
                    shown = value
                    yield [value]
        yield [self._result(full.to_message())]

    # ---- field by field --------------------------------------------------------------------------

    def _field_stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[Field], None]]:
        start = self._model._stream(input, config, **kwargs)
        return lambda: self._completing(start)

    async def _completing(
        self, start: Callable[[], AsyncGenerator[list[AIMessageChunk], None]]
    ) -> AsyncGenerator[list[Field], None]:
        full = fold_events(())
        called = self._target.name if self._method == "function_calling" else None
        answer = _Arriving(called)
        async with aclosing(start()) as batches:
            async for batch in batches:
                found: list[Field] = []
                for chunk in batch:
                    full = full + chunk
                    found += [field for event in chunk.events for field in answer.take(event)]
                if found:
                    yield found
        yield [((), self._result(full.to_message()))]

    # ---- reading the answer ----------------------------------------------------------------------

    def _raw(self, full: AIMessageChunk) -> str:
        if self._method != "function_calling":
            return full.text
        calls = (c for c in full.tool_call_chunks if c["name"] == self._target.name)
        call = next(calls, None)
        return (call["args"] or "") if call else ""

    def _result(self, message: AIMessage) -> Any:
        error: Exception | None = None
        parsed = None
        try:
            parsed = self._parsed(message)
        except StructuredOutputError as wrong:
            error = wrong
        if self._include_raw:
            return RawAndParsed(raw=message, parsed=parsed, parsing_error=error)
        if error is not None:
            raise error
        return parsed

    def _parsed(self, message: AIMessage) -> Any:
        reason = _why_no_answer(message)
        try:
            value = self._value(message)
        except ValueError as error:
            raise _bad(reason or str(error), message) from None
        try:
            return self._target.read(value)
        except ValueError as error:
            raise _bad(f"the answer does not fit {self._target.name}: {error}", message) from None

    def _value(self, message: AIMessage) -> Any:
        """The JSON that the answer holds."""
        if self._method == "function_calling":
            for call in message.tool_calls:
                if call["name"] == self._target.name:
                    return call["args"]
            for bad in message.invalid_tool_calls:
                raise ValueError(f"the call of {bad['name']!r} is unreadable: {bad['error']}")
            raise ValueError(f"the model did not call {self._target.name!r}")
        return _loads(message.text)


class _Arriving:
    """The JSON of an answer while it arrives: its text, or the arguments of the first call of the
    tool `called`."""

    def __init__(self, called: str | None) -> None:
        self._called = called
        self._reader = FieldReader()
        self._book = CallBook()
        self._call: Call | None = None
        self._read = 0  # pieces of the call's arguments

    def take(self, event: Any) -> list[Field]:
        """The fields that are complete with `event`."""
        if self._called is None:
            return self._reader.feed(event.text) if isinstance(event, TextDelta) else []
        if isinstance(event, ToolCallDelta | BlockStart) and event.kind == "tool_call":
            args = event.args if isinstance(event, ToolCallDelta) else ""
            return self._piece(self._book.place(event.id, event.index, event.name, args))
        return []

    def _piece(self, call: Call) -> list[Field]:
        if self._call is None and call.name == self._called:
            self._call = call
        if call is not self._call:
            return []
        new = "".join(call.parts[self._read :])
        self._read = len(call.parts)
        return self._reader.feed(new)


#: Models without a JSON mode of their own like to fence it.
_FENCE: Final = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.S)
_OPEN_FENCE: Final = re.compile(r"^\s*```(?:json)?\s*")


def _loads(text: str) -> Any:
    fenced = _FENCE.match(text)
    try:
        return strict_value(fenced[1] if fenced else text)
    except ValueError as error:
        raise ValueError(f"the answer is not JSON: {error}") from None


def _partial(raw: str) -> dict[str, Any] | None:
    unfenced = _OPEN_FENCE.sub("", raw)
    if not unfenced.strip():
        return None
    try:
        value = best_reading(unfenced)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _why_no_answer(message: AIMessage) -> str | None:
    """What kept the model from a whole answer, if something did."""
    refusal = message.response_metadata.get("refusal")
    if message.finish_reason == "refusal" or refusal:
        return f"the model refused: {refusal or message.text}"
    return {
        "length": "the answer was cut off by the token limit (max_tokens)",
        "content_filter": "the answer was stopped by a content filter",
    }.get(message.finish_reason or "")


def _bad(text: str, message: AIMessage) -> StructuredOutputError:
    return StructuredOutputError(text, raw=message, partial=message)
