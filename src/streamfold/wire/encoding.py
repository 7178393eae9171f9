"""What all encoders share: JSON bytes, tools and tool choices in any of their shapes, and the
reckoning of what cannot be sent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NoReturn, TypeVar

import msgspec
from msgspec.structs import replace

from ..caching import CACHE_MARK
from ..coercion import nearest, shown
from ..content import KNOWN_BLOCK_TYPES, Block
from ..errors import ConfigurationError
from ..messages import BaseMessage, HumanMessage, ToolMessage
from ..parts import portable
from .media import refuse_urls
from .request import ChatRequest

__all__ = [
    "RESPONSES",
    "Dropped",
    "FunctionTool",
    "ToolChoice",
    "Turn",
    "encoded",
    "function_tool",
    "json_bytes",
    "json_text",
    "merged",
    "native_value",
    "other_fields",
    "read_choice",
    "tool_name",
    "turns",
    "unknown_part",
]

T = TypeVar("T")

# ---- JSON ----------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Subclasses of str, int and float (template strings, numbers of other libraries) as those."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    raise TypeError(f"{type(value).__name__} ({shown(value)}) is not JSON data")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def json_bytes(value: Any) -> bytes:
    """Compact JSON. Raises ConfigurationError for what is not JSON data."""
    try:
        written = _encode(value)
        # The encoder writes null for them, and a null is rare enough to look for its reason.
        if b"null" in written and (found := _first(_is_no_number, value, "")):
            place, number = found
            raise ConfigurationError(f"{place} is {number}: expected a finite number")
        return written
    except UnicodeEncodeError:
        place, text = _first(_half_pair, value, "") or ("the request", "")
        raise ConfigurationError(
            f"{place} has half a surrogate pair in {ascii(text)[:60]}: expected valid Unicode"
        ) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"the request cannot be written as JSON: {error}") from None


def json_text(value: Any) -> str:
    """The same as a str, as the arguments of tool calls are sent."""
    return json_bytes(value).decode()


def _half_pair(value: Any) -> str | None:
    """The piece around half a surrogate pair, in a string that UTF-8 cannot hold."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return value[max(0, error.start - 20) : error.end + 20]
    return None


def _is_no_number(value: Any) -> str | None:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else None


def _first(wrong: Callable[[Any], str | None], value: Any, place: str) -> tuple[str, str] | None:
    """Where the first value is that is `wrong`, and what is."""
    if (what := wrong(value)) is not None:
        return place.lstrip("."), what
    if isinstance(value, Mapping):
        steps: Iterable[tuple[str, Any]] = ((f"{place}.{key}", each) for key, each in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        steps = ((f"{place}[{number}]", each) for number, each in enumerate(value))
    else:
        return None
    return next((found for where, each in steps if (found := _first(wrong, each, where))), None)


def merged(body: dict[str, Any], extra: Mapping[str, Any], deep: Iterable[str]) -> dict[str, Any]:
    """`body` with the fields of `extra`, which win; the objects named in `deep` are merged."""
    result = {**body, **extra}
    for key in deep:
        ours, theirs = body.get(key), extra.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            result[key] = {**ours, **theirs}
    return result


# ---- what can be sent ----------------------------------------------------------------------------


class Dropped:
    """What a request cannot carry. `warn` says it once, when all of the request is known."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self._what: dict[str, None] = {}

    def note(self, what: str) -> None:
        self._what[what] = None

    def warn(self) -> None:
        if self._what:
            warnings.warn(
                f"left out, for {self.dialect} takes no such thing: {', '.join(self._what)}",
                stacklevel=3,
            )


class Turn(msgspec.Struct, frozen=True):
    """The message at hand, for the functions that encode its blocks.

    `own` is False for an answer of another provider, or of another API of its. `answered` holds
    the ids of the calls that have results: the APIs reject an unreadable call that nothing answers.
    `past` is True for what was said before such an answer, and so to another model.
    """

    message: BaseMessage
    own: bool
    answered: frozenset[str]
    dropped: Dropped
    past: bool


def turns(request: ChatRequest, dropped: Dropped) -> list[Turn]:
    """The messages of a request, each as a `Turn`.

    Two quirks are read here: `no_urls`, of vendors that fetch no media where others of their
    dialect do, and `cache_marks`, of those that are told where the cache ends.
    """
    if "no_urls" in request.quirks:
        refuse_urls(request.messages, request.provider)
    answered = _answered_calls(request.messages)
    is_response = dropped.dialect == RESPONSES
    messages = [_readable(message, dropped.dialect) for message in request.messages]
    messages = [_with_mark(message, request, dropped.dialect) for message in messages]
    said = [(message, _is_own(message, request, is_response)) for message in messages]
    for message, own in said:
        if not own and _is_signed(message):
            dropped.note("signatures of another provider")
    last = max((place for place, (_, own) in enumerate(said) if not own), default=-1)
    return [
        Turn(message, own, answered, dropped, place < last)
        for place, (message, own) in enumerate(_handed_on(said))
    ]


def _readable(message: BaseMessage, dialect: str) -> BaseMessage:
    """A message whose parts are in the standard form or the dialect's own."""
    if not isinstance(message.content, list):
        return message
    parts = [portable(part, dialect) for part in message.content]
    changed = any(new is not old for new, old in zip(parts, message.content, strict=True))
    return replace(message, content=parts) if changed else message


#: The dialects that read the cache mark of a message themselves.
_MARKED: Final = frozenset({"Anthropic", "Bedrock Converse"})


def _with_mark(message: BaseMessage, request: ChatRequest, dialect: str) -> BaseMessage:
    """A message that `cache_prompt` marked, as this vendor is told: on its last text where the
    quirk `cache_marks` says so; most need no telling."""
    mark = message.extras.get(CACHE_MARK)
    if mark is None or dialect in _MARKED:
        return message
    extras = {key: value for key, value in message.extras.items() if key != CACHE_MARK}
    blocks = message.content_blocks
    texts = [place for place, block in enumerate(blocks) if block.get("type") == "text"]
    if "cache_marks" not in request.quirks or not texts:
        return replace(message, extras=extras)
    last = blocks[texts[-1]]
    blocks[texts[-1]] = {**last, "extras": {CACHE_MARK: mark, **(last.get("extras") or {})}}
    return replace(message, content=blocks, extras=extras)


def _is_signed(message: BaseMessage) -> bool:
    """Whether texts or calls have what only their maker can read. (Reasoning is noted where it is
    encoded, for some of it is read elsewhere, too.)"""
    blocks = message.content if isinstance(message.content, list) else ()
    return any(
        "signature" in key.lower() or key == "extra_content"
        for block in blocks
        if block.get("type") in ("text", "tool_call")
        for key in block.get("extras") or ()
    )


def _handed_on(said: list[tuple[BaseMessage, bool]]) -> Iterable[tuple[BaseMessage, bool]]:
    """Images that another provider made have no place in an answer here: they go to the head of
    what the user says next. Where the user says nothing more, they are left to the encoder."""
    images: list[Block] = []
    asked = [place for place, (message, _) in enumerate(said) if isinstance(message, HumanMessage)]
    for place, (message, own) in enumerate(said):
        if images and isinstance(message, HumanMessage):
            parts = message.content if isinstance(message.content, list) else message.content_blocks
            message = replace(message, content=[*images, *parts])
            images = []
        elif not own and asked and place < asked[-1]:
            made = [block for block in message.content_blocks if _is_image(block)]
            if made:
                images += [{k: v for k, v in b.items() if k not in ("id", "extras")} for b in made]
                rest = [block for block in message.content if block not in made]
                message = replace(message, content=rest)
        yield message, own


def _is_image(block: Block) -> bool:
    return block.get("type") == "image" and bool(block.get("base64") or block.get("url"))


#: The `dialect` of OpenAI's second API: what answers over it hold does not fit into the first.
RESPONSES: Final = "Responses"


def _is_own(message: BaseMessage, request: ChatRequest, is_response: bool) -> bool:
    made = message.response_metadata
    maker = made.get("model_provider")
    if maker is None:
        return True
    same_api = (made.get("object") == "response") is is_response
    return same_api and (request.provider is None or _vendor(request.provider) == _vendor(maker))


def _vendor(name: str) -> str:
    return "bedrock" if name == "bedrock_converse" else name  # two names of one vendor


def _answered_calls(messages: Iterable[BaseMessage]) -> frozenset[str]:
    """The ids of the calls that a tool message, or a native tool result, answers."""
    found: set[str] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            found.add(message.tool_call_id)
        elif isinstance(message.content, list):
            ids = (block.get("tool_use_id") for block in message.content)
            found.update(id for id in ids if isinstance(id, str))
    return frozenset(found)


_BLOCK_FIELDS: Final = frozenset({"type", "id", "index", "extras"})


def other_fields(block: Block, turn: Turn, *read: str) -> Block:
    """The fields of a block that only the vendor knows: its `extras`, and keys beside the standard
    ones. Those of another provider's answer stay behind."""
    if not turn.own:
        return {}
    beside = {k: v for k, v in block.items() if k not in _BLOCK_FIELDS and k not in read}
    return {**beside, **(block.get("extras") or {})}


def unknown_part(part: Block, dialect: str, native: Iterable[str]) -> NoReturn:
    """Raise the error for a content part that is neither a standard block nor the vendor's own."""
    kind = part.get("type")
    what = "has no type" if kind is None else f"has the unknown type {kind!r}"
    raise ConfigurationError(
        f"the content part {shown(part)} {what}: expected a standard content block or a part of "
        f"{dialect}{nearest(kind, [*KNOWN_BLOCK_TYPES, *native])}; "
        '{"type": "non_standard", "value": {...}} passes anything on as it is'
    )


def encoded(encoders: Mapping[str, Callable[..., T]], block: Block, turn: Turn, *more: Any) -> T:
    """A block by the encoder of its kind.

    What cannot be sent is an error; but in what was said to another model it is left out aloud, and
    a text stands for it, so that the conversation can go on here.
    """
    kind = str(block.get("type"))
    try:
        return encoders[kind](block, turn, *more)
    except ConfigurationError:
        if not turn.past or kind not in _MEDIA:
            raise
        turn.dropped.note(f"{kind} block of an earlier {turn.message.role} message")
        return encoders["text"]({"type": "text", "text": f"[{kind}]"}, turn, *more)


_MEDIA: Final = frozenset({"image", "audio", "video", "file", "text-plain"})


def native_value(block: Block, turn: Turn) -> Block | None:
    """What a `non_standard` block holds; None, noted, if it belongs to another provider."""
    value = block.get("value")
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"the block {shown(block)} has no value: expected a dict in it")
    if turn.own:
        return dict(value)
    turn.dropped.note(f"{value.get('type')} block of another provider")
    return None


# ---- tools ---------------------------------------------------------------------------------------


class FunctionTool(msgspec.Struct, frozen=True):
    """A tool of the caller's, whatever shape it was given in. `rest`: fields beside these."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    rest: dict[str, Any] = {}


def function_tool(tool: Mapping[str, Any]) -> FunctionTool | None:
    """Reads OpenAI's function tools (nested or flat), Anthropic's tools, bare
    ``{"name", "description", "parameters" or "input_schema"}`` and JSON schemas with a title.

    None for anything else: a native tool, sent as it is. Raises ConfigurationError if it has no
    name.
    """
    function = tool.get("function")
    if isinstance(function, Mapping):
        beside = {k: v for k, v in tool.items() if k not in ("type", "function")}
        return _flat_tool(function, beside, tool)
    kind = tool.get("type")
    if kind == "function" or (kind in (None, "custom") and "input_schema" in tool):
        return _flat_tool(tool, {}, tool)
    if kind is None and "name" in tool:
        return _flat_tool(tool, {}, tool)
    if kind == "object" or (kind is None and "properties" in tool):
        return _schema_tool(tool)
    return None


def _flat_tool(fields: Mapping[str, Any], beside: dict[str, Any], tool: Any) -> FunctionTool:
    read = ("type", "name", "description", "parameters", "input_schema", "strict")
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"the tool {shown(tool)} has the name {name!r}: expected a str")
    return FunctionTool(
        name,
        fields.get("description"),
        fields.get("parameters", fields.get("input_schema")),
        fields.get("strict"),
        {**beside, **{k: v for k, v in fields.items() if k not in read}},
    )


def _schema_tool(schema: Mapping[str, Any]) -> FunctionTool:
    if not isinstance(schema.get("title"), str):
        raise ConfigurationError(
            f"the tool {shown(schema)} is a JSON schema without a title: expected one, for it "
            "becomes the tool's name"
        )
    rest = {k: v for k, v in schema.items() if k not in ("title", "description")}
    return FunctionTool(schema["title"], schema.get("description"), rest)


def tool_name(tool: Mapping[str, Any]) -> str | None:
    """By what a `tool_choice` may name a tool: its name, or the type of a native one."""
    function = function_tool(tool)
    if function is not None:
        return function.name
    custom = tool.get("custom")
    inner = custom if isinstance(custom, Mapping) else tool
    name = inner.get("name") or tool.get("type")
    return name if isinstance(name, str) else None


class ToolChoice(msgspec.Struct, frozen=True):
    """How the model is to use its tools. `name` and the `tool` as it was bound are there for a
    `named` choice; `native` has what came with it in a dict, or all of a dict in no known form."""

    kind: Literal["auto", "none", "required", "named", "native"]
    name: str | None = None
    tool: dict[str, Any] | None = None
    native: dict[str, Any] = {}


_WORDS: Final[dict[str, Literal["auto", "none", "required"]]] = {
    "auto": "auto",
    "none": "none",
    "any": "required",
    "required": "required",
}


def read_choice(request: ChatRequest) -> ToolChoice | None:
    """`tool_choice` as one value; None if nothing is to be said.

    Takes "auto", "none", "any" or "required", True (the same), a tool's name, or a dict of
    OpenAI's or Anthropic's. Raises ConfigurationError for a name that is not bound, and for a
    choice that demands a call where there are no tools.
    """
    if request.tool_choice is None or request.tool_choice is False:
        return None
    choice = _as_choice(request.tool_choice)
    tools = [*(request.tools or ()), *(request.extra.get("tools") or ())]
    if choice.kind == "native":
        return choice
    if not tools:
        if choice.kind in ("auto", "none"):
            return None  # without tools both say what is so anyway
        raise ConfigurationError(
            f"tool_choice is {shown(request.tool_choice)}, but no tools are bound"
        )
    return _bound(choice, tools) if choice.kind == "named" else choice


def _as_choice(choice: Any) -> ToolChoice:
    if choice is True:
        return ToolChoice("required")
    if isinstance(choice, str):
        word = _WORDS.get(choice)
        return ToolChoice(word) if word else ToolChoice("named", choice)
    if isinstance(choice, Mapping):
        return _choice_from_dict(dict(choice))
    raise ConfigurationError(
        f"tool_choice is {shown(choice)}: expected 'auto', 'none', 'any', 'required', the name of "
        "a tool, or a dict"
    )


def _choice_from_dict(choice: dict[str, Any]) -> ToolChoice:
    rest = {k: v for k, v in choice.items() if k not in ("type", "name", "function")}
    kind, function = choice.get("type"), choice.get("function")
    if kind in _WORDS:
        return ToolChoice(_WORDS[kind], native=rest)
    name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    if kind in ("function", "tool") and isinstance(name, str):
        return ToolChoice("named", name, native=rest)
    return ToolChoice("native", native=choice)


def _bound(choice: ToolChoice, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    names = [name for tool in tools if (name := tool_name(tool))]
    for tool in tools:
        if tool_name(tool) == choice.name:
            return msgspec.structs.replace(choice, tool=dict(tool))
    raise ConfigurationError(
        f"tool_choice names {choice.name!r}, which is not bound: expected one of "
        f"{', '.join(names)}, or 'auto', 'any', 'none'{nearest(choice.name, [*names, *_WORDS])}"
    )
