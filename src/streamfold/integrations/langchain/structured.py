"""Structured output in LangChain: what reads the object from the answer of the model.

The last, or only, object is held to the schema as streamfold does it: one that does not fit is a
StructuredOutputError with the message in `raw`, never None in silence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, cast

from langchain_core.messages import AIMessageChunk as LangChainChunk
from langchain_core.messages import BaseMessage as LangChainMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.pydantic import is_basemodel_subclass

from ...chunks import AIMessageChunk, fold_events
from ...errors import StructuredOutputError
from ...messages import AIMessage
from ...structured import StructuredModel
from .messages import from_langchain

__all__ = ["Reader", "as_schema"]

Convert = Callable[[Any], Any]


def as_schema(schema: Any) -> tuple[Any, Convert | None]:
    """A schema as streamfold takes it, and what makes the object of the dict where streamfold does
    not know the class: those of pydantic's first version."""
    old = isinstance(schema, type) and is_basemodel_subclass(schema)
    if old and not hasattr(schema, "model_json_schema"):
        return schema.schema(), schema.parse_obj
    return schema, None


class Reader(Runnable[LangChainMessage, Any]):
    """Messages in, objects out. Streamed, dicts grow; objects of a class come once, when whole."""

    def __init__(self, structured: StructuredModel, schema: Any, convert: Convert | None) -> None:
        self.name = "structured_output"
        self._structured = structured
        self._grows = convert is None and isinstance(schema, Mapping)
        self._convert = convert

    def invoke(
        self, input: LangChainMessage, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        return self._call_with_config(self._read, input, config, run_type="parser")

    async def ainvoke(
        self, input: LangChainMessage, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        async def read(message: LangChainMessage) -> Any:
            return self._read(message)

        return await self._acall_with_config(read, input, config, run_type="parser")

    def transform(
        self,
        input: Iterator[LangChainMessage],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        yield from self._transform_stream_with_config(input, self._parts, config, run_type="parser")

    async def atransform(
        self,
        input: AsyncIterator[LangChainMessage],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        parts = self._atransform_stream_with_config(input, self._aparts, config, run_type="parser")
        async for part in parts:
            yield part

    def _parts(self, messages: Iterator[LangChainMessage]) -> Iterator[Any]:
        answer = _Growing(self._structured)
        for message in messages:
            yield from answer.take(message) if self._grows else answer.keep(message)
        yield self._read(answer.whole())

    async def _aparts(self, messages: AsyncIterator[LangChainMessage]) -> AsyncIterator[Any]:
        answer = _Growing(self._structured)
        async for message in messages:
            for part in answer.take(message) if self._grows else answer.keep(message):
                yield part
        yield self._read(answer.whole())

    def _read(self, message: LangChainMessage) -> Any:
        answer = cast(AIMessage, from_langchain(message))
        value = self._structured.read(answer)
        if self._convert is None:
            return value
        try:
            return self._convert(value)
        except ValueError as error:
            text = f"the answer does not fit the schema: {error}"
            raise StructuredOutputError(text, raw=answer, partial=answer) from None


class _Growing:
    """An answer that is read while it arrives; each reading waits for an eighth more than the one
    before had, so that all of them cost no more than a few of the whole."""

    def __init__(self, structured: StructuredModel) -> None:
        self._structured = structured
        self._messages: list[LangChainMessage] = []
        self._full = fold_events(())
        self._shown: Any = None
        self._due = 0

    def keep(self, message: LangChainMessage) -> list[Any]:
        """One more chunk, of which nothing is shown."""
        self._messages.append(message)
        return []

    def take(self, message: LangChainMessage) -> list[Any]:
        """One more chunk; the object so far, if it has grown."""
        self._messages.append(message)
        calls: Any = getattr(message, "tool_call_chunks", [])
        self._full = self._full + AIMessageChunk(str(message.text), tool_call_chunks=calls)
        if len(self._messages) < self._due:
            return []
        self._due = len(self._messages) * 9 // 8
        value = self._structured.read_partial(self._full)
        if value is None or value == self._shown:
            return []
        self._shown = value
        return [value]

    def whole(self) -> LangChainMessage:
        """The message that the chunks add up to."""
        first, *others = self._messages
        if isinstance(first, LangChainChunk):
            return add_ai_message_chunks(first, *cast(list[LangChainChunk], others))
        return first
