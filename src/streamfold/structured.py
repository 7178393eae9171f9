"""Structured output: the answer as an object of a type, by the way the model does best.

`json_schema` has the provider hold the answer to the schema, `function_calling` has the model call
a tool whose arguments are the object, `json_mode` asks for JSON and trusts the prompt. A bad answer
is an error with the message attached, never None.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, TypedDict

from .chunks import AIMessageChunk, fold_events
from .errors import ConfigurationError, StructuredOutputError
from .messages import AIMessage
from .partial_json import best_reading
from .runnables import Runnable
from .schema import (
    convert,
    describe,
    is_object_type,
    is_typeddict,
    schema_of,
    strict_schema,
    without_nulls,
)
from .tools import tool_definition

__all__ = ["Method", "RawAndParsed", "StructuredModel", "bound_for"]

Method = Literal["json_schema", "function_calling", "json_mode"]

_METHODS: Final = ("json_schema", "function_calling", "json_mode")
#: Dialects whose providers hold answers to a schema, where no profile says so.
_BY_SCHEMA: Final = frozenset({"openai_chat", "openai_responses", "gemini", "ollama"})


class RawAndParsed(TypedDict):
    """What `include_raw=True` gives."""

    raw: AIMessage
    parsed: Any
    parsing_error: Exception | None


class Target:
    """What the answer shall be: the name and schema for the provider, the type for the caller."""

    def __init__(self, schema: Any) -> None:
        if isinstance(schema, Mapping):
            given = dict(schema)
            if isinstance(given.get("function"), Mapping):
                given = dict(given["function"])
            if "parameters" in given:
                inner = {**given["parameters"], "title": given.get("name", "answer")}
                given = {"description": given.get("description", ""), **inner}
            self.type: Any = None
            self.schema = given
        elif is_object_type(schema):
            self.type = schema
            self.schema = schema_of(schema)
        else:
            raise ConfigurationError(
                f"schema is {schema!r:.60}: expected a pydantic model, a TypedDict, a dataclass, a "
                "msgspec Struct or a JSON schema"
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


def best_method(profile: Mapping[str, Any], dialect: str) -> Method:
    """The method that suits a model best: as its profile says, else as its API usually can."""
    if profile.get("structured_output"):
        return "json_schema"
    if "structured_output" in profile and profile.get("tool_calling"):
        return "function_calling"
    return "json_schema" if dialect in _BY_SCHEMA else "function_calling"


def bound_for(model: Any, target: Target, method: Method, strict: bool | None) -> Any:
    """`model` with what `method` says in the request. Raises ConfigurationError if it cannot."""
    if method not in _METHODS:
        raise ConfigurationError(
            f"method is {method!r}: expected one of {', '.join(map(repr, _METHODS))}"
        )
    if method == "json_mode":
        if strict:
            raise ConfigurationError("json_mode knows no schema, so it cannot be strict")
        return model.bind(response_format={"type": "json_object"})
    if method == "json_schema":
        return model.bind(response_format=_response_format(target, strict))
    schema = {"title": target.name, "type": "object", **target.schema}
    definition = tool_definition({**schema, "description": target.description}, strict=strict)
    return model.bind_tools([definition], tool_choice=target.name)


def _response_format(target: Target, strict: bool | None) -> dict[str, Any]:
    tight = strict_schema(target.schema) if strict is not False else None
    if strict and tight is None:
        raise ConfigurationError(
            f"schema {target.name!r} cannot be strict: it has objects of any shape"
        )
    described: dict[str, Any] = {"name": target.name, "schema": tight or target.schema}
    if target.description:
        described["description"] = target.description
    described["strict"] = tight is not None
    return {"type": "json_schema", "json_schema": described}


class StructuredModel(Runnable):
    """A model whose answers are objects. Made by `with_structured_output`."""

    def __init__(self, model: Any, target: Target, method: Method, include_raw: bool) -> None:
        self._model = model
        self._target = target
        self._method: Method = method
        self._include_raw = include_raw
        self._config = model._config

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


_FENCE: Final = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.S)


def _loads(text: str) -> Any:
    import msgspec

    fenced = _FENCE.match(text)  # models without a JSON mode of their own like to fence it
    try:
        return msgspec.json.decode(fenced[1] if fenced else text)
    except msgspec.DecodeError as error:
        raise ValueError(f"the answer is not JSON: {error}") from None


def _partial(raw: str) -> Any:
    if not raw.strip():
        return None
    try:
        value = best_reading(raw)
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
