"""Tools: functions that a model may call.

`@tool` makes a `Tool` of a function: name, description and the schema of its arguments come from
the function itself. Arguments are data from outside, so they are validated before the function
runs.
"""

from __future__ import annotations

import copy
import functools
import inspect
import reprlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, overload

import anyio
import msgspec

from .chunks import AIMessageChunk
from .coercion import shown
from .config import merge_configs
from .errors import ConfigurationError, ToolException
from .messages import AIMessage, ToolMessage
from .net import portal
from .parts import standard_block
from .runnables import Runnable
from .runs import Run, begin, in_thread, inherited, inside, told
from .schema import (
    check,
    convert,
    describe,
    function_name,
    function_schema,
    is_object_type,
    is_pydantic,
    schema_of,
    unfit,
    without_nulls,
)
from .stored import Stored, returned_class
from .tool_definitions import checked_description, checked_name, tool_definition

__all__ = ["Tool", "ToolException", "arun_tool_calls", "run_tool_calls", "tool", "tool_definition"]

#: What to do with an error: raise it, or hand the model a text: a general one, this one, or made.
OnError: TypeAlias = bool | str | Callable[[Any], str]


_FORMATS: Final = ("content", "content_and_artifact")


class Tool(Runnable):
    """A function that a model may call. Made by `@tool`.

    A runnable whose input is the arguments as a dict (or the value of the only argument), and which
    gives what the function returns; for a tool call it gives a `ToolMessage` that answers it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        args_schema: Any = None,
        response_format: Literal["content", "content_and_artifact"] = "content",
        handle_tool_error: OnError = False,
        handle_validation_error: OnError = False,
        return_direct: bool = False,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"@tool got {function!r:.60}: expected a function")
        self.function = function
        if response_format not in _FORMATS:
            raise ConfigurationError(
                f"response_format is {shown(response_format)}: expected one of "
                f"{', '.join(map(repr, _FORMATS))}"
            )
        self.name = str(name or function_name(function))
        if args_schema is None:
            schema, self._types, text = function_schema(function)
        else:
            schema, self._types, text = _given_schema(args_schema)
        self._args_type = args_schema if is_object_type(args_schema) else None
        own = inspect.cleandoc(function.__doc__ or "")
        doc = text if args_schema is None else own or text
        checked_name(self.name)
        self.description = checked_description(description or doc, self.name)
        self.schema = schema
        self.response_format = response_format
        self.handle_tool_error = handle_tool_error
        self.handle_validation_error = handle_validation_error
        self.return_direct = return_direct
        self.extras = dict(extras or {})
        self._takes_config = "config" in inspect.signature(function).parameters
        functools.update_wrapper(self, function, updated=())

    @property
    def args(self) -> dict[str, Any]:
        """The JSON schema of each argument."""
        return dict(self.schema.get("properties", {}))

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, args={list(self.args)})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself."""
        return self.function(*args, **kwargs)

    # ---- calling ---------------------------------------------------------------------------------

    async def ainvoke(  # type: ignore[override]  # a tool has no parameters besides its input
        self, input: Any, config: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the tool with arguments, or for a tool call. A sync function runs in a thread.

        Raises what the function raises, and ToolException for arguments that do not fit, unless
        `handle_tool_error` and `handle_validation_error` make messages of them.
        """
        call_id, args = self._read(input)
        run = begin("tool", self.name, merge_configs(self._config, config), counts=True)
        assert run is not None  # a run that counts is always there
        start = ({"name": self.name}, _text(args))
        whose = {"tool_call_id": call_id}
        async with told(run, *start, partial=lambda error: whose, inputs=args) as outcome:
            result, status = await self._answer(args, run)
            outcome.result = self._wrapped(result, status, call_id)
        return outcome.result

    def _stream(  # type: ignore[override]
        self, input: Any, config: Mapping[str, Any] | None = None
    ) -> Callable[[], AsyncGenerator[list[Any], None]]:
        async def whole() -> AsyncGenerator[list[Any], None]:
            yield [await self.ainvoke(input, config)]

        return whole

    def with_config(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Tool:
        """A tool whose runs have this configuration."""
        tool = copy.copy(self)
        tool._config = merge_configs(self._config, config, kwargs)
        return tool

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        identity = {"runnable": self.name, "args": self.args, **kwargs}
        return Stored(identity=identity, type=returned_class(self.function))

    def _read(self, input: Any) -> tuple[str | None, Any]:
        """The id of the call, if `input` is one, and the arguments."""
        if not isinstance(input, Mapping):
            only = next(iter(self.args), None)
            if only is None or len(self.args) != 1:
                raise ToolException(
                    f"tool {self.name!r} got {reprlib.repr(input)}: expected a dict with "
                    f"{list(self.args)}"
                )
            return None, {only: input}
        named = input.get("name") == self.name and {"args", "id"} <= input.keys()
        if input.get("type") == "tool_call" or named:
            return str(input.get("id") or ""), input.get("args")
        return None, input

    async def _answer(self, args: Any, run: Run) -> tuple[Any, Literal["success", "error"]]:
        try:
            kwargs = self.validated(args)
        except ToolException as error:
            return _handled(error, self.handle_validation_error), "error"
        if self._takes_config:
            kwargs["config"] = inherited(run)
        try:
            with inside(run):
                return await self._call(kwargs, run), "success"
        except ToolException as error:
            return _handled(error, self.handle_tool_error), "error"

    async def _call(self, kwargs: dict[str, Any], run: Run) -> Any:
        call = functools.partial(self.function, **kwargs)
        if inspect.iscoroutinefunction(inspect.unwrap(self.function)):
            return await call()
        result = await in_thread(run, call)
        return await result if inspect.isawaitable(result) else result

    def validated(self, args: Any) -> dict[str, Any]:
        """`args` as the function takes them. Raises ToolException, naming the argument."""
        if not isinstance(args, Mapping):
            raise ToolException(
                f"the arguments of {self.name!r} are {reprlib.repr(args)}: expected an object"
            )
        self._check_names(args)
        for name, value in args.items():
            problem = unfit(value)
            if problem is not None:
                raise ToolException(f"argument {name!r} of {self.name!r} is no JSON: {problem}")
        args = without_nulls(dict(args), self.schema)  # strict mode says null for "left out"
        if self._args_type is not None:
            return _fields(self._converted(args, self._args_type, "an argument"))
        if not self._types:
            self._checked(args)
        return {
            name: self._converted(value, self._types.get(name, Any), f"argument {name!r}")
            for name, value in args.items()
        }

    def _check_names(self, args: Mapping[str, Any]) -> None:
        known = {*self.args, *getattr(self._args_type, "model_fields", ())}
        for name in args:
            if name not in known and self.schema.get("additionalProperties") in (None, False):
                raise ToolException(
                    f"{self.name!r} has no argument {name!r}: it has "
                    f"{', '.join(self.args) or 'none'}"
                )
        if self._args_type is not None:
            return  # which may know a field by two names
        for name in self.schema.get("required", ()):
            if name not in args:
                raise ToolException(f"{self.name!r} lacks the argument {name!r}")

    def _checked(self, args: dict[str, Any]) -> None:
        """For a tool that was given a JSON schema and no types."""
        try:
            check(args, self.schema)
        except ValueError as error:
            raise ToolException(f"the arguments of {self.name!r} do not fit: {error}") from None

    def _converted(self, value: Any, type_: Any, what: str) -> Any:
        try:
            return convert(value, type_)
        except ValueError as error:
            raise ToolException(
                f"{what} of {self.name!r} is {value!r:.80}, which does not fit: {error}"
            ) from None

    def _wrapped(
        self, result: Any, status: Literal["success", "error"], call_id: str | None
    ) -> Any:
        artifact = None
        if self.response_format == "content_and_artifact" and status == "success":
            if not (isinstance(result, tuple) and len(result) == 2):
                raise ConfigurationError(
                    f"tool {self.name!r} returned {type(result).__name__}: with "
                    "response_format='content_and_artifact' it returns (content, artifact)"
                )
            result, artifact = result
        if call_id is None or isinstance(result, ToolMessage):
            return result
        return ToolMessage(
            _content(result),
            tool_call_id=call_id,
            name=self.name,
            status=status,
            artifact=artifact,
        )


def _handled(error: ToolException, handler: OnError) -> str:
    """The text for the model that stands for the error, or the error raised."""
    if handler is False:
        raise error
    if handler is True:
        return error.message or "the tool failed"
    return handler if isinstance(handler, str) else handler(error)


def _content(result: Any) -> Any:
    """A result as the content of a message: text and content blocks stay, one block with media is
    a list of it, the rest becomes JSON."""
    if isinstance(result, str):
        return result
    if isinstance(result, Mapping) and result.get("type") in _MEDIA:
        return [result]
    blocks = isinstance(result, list) and result and all(map(_is_block, result))
    return result if blocks else _text(result)


_MEDIA: Final = frozenset({"image", "audio", "video", "file", "image_url"})
#: Vendors' own blocks for results.
_RESULTS: Final = frozenset({"document", "json", "search_result", "tool_reference"})


def _is_block(item: Any) -> bool:
    """Whether `item` is a content block, and not data of the tool's that has a type as well."""
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        return False
    return item["type"] in _RESULTS or standard_block(dict(item))["type"] != "non_standard"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        text = msgspec.json.encode(value, enc_hook=_plain).decode()
        return str(msgspec.json.decode(text)) if text[:1] == '"' else text
    except (TypeError, ValueError):
        return str(value)
    except RecursionError:
        return f"a {type(value).__name__} nested without end"


def _plain(value: Any) -> Any:
    """What JSON knows nothing of: pydantic's objects as their fields, others by their text."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a validated object, as keyword arguments."""
    if isinstance(value, Mapping):
        return dict(value)
    if is_pydantic(type(value)):
        return {name: getattr(value, name) for name in type(value).model_fields}
    names = getattr(value, "__struct_fields__", None) or value.__dataclass_fields__
    return {name: getattr(value, name) for name in names}


def _given_schema(args_schema: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    if isinstance(args_schema, Mapping):
        return dict(args_schema), {}, str(args_schema.get("description", ""))
    if is_object_type(args_schema):
        return schema_of(args_schema), {}, describe(args_schema)
    raise ConfigurationError(
        f"args_schema is {args_schema!r:.60}: expected a pydantic model, a msgspec Struct, a "
        "dataclass, a TypedDict or a JSON schema"
    )


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(name: str | None = None, /, **options: Any) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(name_or_function: Any = None, /, **options: Any) -> Any:
    """Make a function a tool: ``@tool``, ``@tool("name")`` or ``@tool(description=...)``.

    Options: `description`, `args_schema` (a pydantic model, msgspec Struct, dataclass, TypedDict or
    JSON schema instead of the signature), `response_format` ("content_and_artifact": the function
    returns both), `handle_tool_error` and `handle_validation_error` (True, a text, or a function
    of the error that makes one: the model gets it as a message), `return_direct`, `extras` (fields
    of the definition that only some vendors take, such as ``{"cache_control": ...}``).

    Raises ConfigurationError if there is no description or an argument has no JSON schema.
    """
    for name in ("parse_docstring", "error_on_invalid_docstring"):
        options.pop(name, None)  # argument sections of docstrings are always read
    name_or_function = options.pop("name", None) if name_or_function is None else name_or_function
    if callable(name_or_function):
        return Tool(name_or_function, **options)
    if not isinstance(name_or_function, str | None):
        raise ConfigurationError(f"@tool got {shown(name_or_function)}: expected a name or nothing")
    return lambda function: Tool(function, name=name_or_function, **options)


# ---- running the calls of a message --------------------------------------------------------------


async def arun_tool_calls(
    message: AIMessage, tools: Iterable[Any], config: Mapping[str, Any] | None = None
) -> list[ToolMessage]:
    """Run all tool calls of `message` at once; the results are in the order of the calls.

    `tools` is what was given to `bind_tools`: `Tool`s and functions are run, definitions without
    code are passed over. Each call has its own error: an unknown tool, unreadable or cut off
    arguments or a failure becomes a `ToolMessage` with ``status="error"``, for the model to see.
    """
    known = {item.name: item for item in _runnable_tools(tools)}
    calls = _calls(message)
    results: list[ToolMessage | None] = [None] * len(calls)

    async def one(place: int, call: Mapping[str, Any]) -> None:
        results[place] = await _run_call(call, known, config)

    async with anyio.create_task_group() as group:
        for place, call in enumerate(calls):
            group.start_soon(one, place, call)
    return [result for result in results if result is not None]


def _runnable_tools(tools: Iterable[Any]) -> Iterable[Tool]:
    for item in tools:
        if isinstance(item, Tool):
            yield item
        elif callable(item) and not isinstance(item, type):
            yield Tool(item)


def _calls(message: AIMessage) -> list[Mapping[str, Any]]:
    """The calls of a message in its order, readable and unreadable ones."""
    if isinstance(message, AIMessageChunk):
        message = message.to_message()  # of a call that is still arriving no part is run
    if not isinstance(message, AIMessage):
        raise ConfigurationError(f"message is {shown(message)}: expected an AIMessage")
    kinds = ("tool_call", "invalid_tool_call")
    return [block for block in message.content_blocks if block["type"] in kinds]


def run_tool_calls(
    message: AIMessage, tools: Iterable[Any], config: Mapping[str, Any] | None = None
) -> list[ToolMessage]:
    """`arun_tool_calls`, waited for."""
    listed = list(tools)
    return portal.run(lambda: arun_tool_calls(message, listed, config))


async def _run_call(
    call: Mapping[str, Any], known: Mapping[str, Tool], config: Mapping[str, Any] | None
) -> ToolMessage:
    name, id = str(call.get("name")), str(call.get("id") or "unknown")
    found = known.get(name)
    if call.get("type") == "invalid_tool_call":
        problem = f"the call cannot be run: {call.get('error')}"
    elif found is None:
        problem = f"there is no tool {name!r}; there are {', '.join(known) or 'none'}"
    else:
        try:
            result = found.ainvoke({**call, "type": "tool_call", "id": id}, config)
            return await _message(result)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
    return ToolMessage(problem, tool_call_id=id, name=name, status="error")


async def _message(result: Awaitable[Any]) -> ToolMessage:
    message: ToolMessage = await result
    return message
