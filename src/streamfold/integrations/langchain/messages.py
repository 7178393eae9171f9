"""Messages of streamfold as messages of LangChain, and back, without loss.

LangChain's standard content (`output_version` "v1") is streamfold's, so blocks go over as they are.
An answer of text and tool calls has its text as a str, as LangChain's own classes have it. What has
no place on the other side travels along in a field that no provider is sent: streamfold's under
``additional_kwargs["streamfold"]``, LangChain's under ``response_metadata["langchain"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from langchain_core import messages as lc
from langchain_core.messages.block_translators import get_translator

from ...chunks import AIMessageChunk
from ...coercion import coerce_messages, shown
from ...content import Block
from ...errors import ConfigurationError
from ...messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

__all__ = ["KEPT", "from_langchain", "provider_shows_calls", "to_langchain"]

#: Where each side keeps what only the other one knows.
KEPT: Final = "streamfold"
_THEIRS: Final = "langchain"
#: How LangChain says that a system message is a developer's.
_ROLE: Final = "__openai_role__"

_Fields = dict[str, Any]


# ---- to LangChain --------------------------------------------------------------------------------


def to_langchain(message: BaseMessage) -> lc.BaseMessage:
    """`message` as LangChain has it; `from_langchain` of the result is equal to `message`.

    A chunk becomes the message that has arrived. The content of an answer is a str where it is
    text (and tool calls), else the list of content blocks, marked as "v1".
    """
    if isinstance(message, AIMessageChunk):
        message = message.to_message()
    if isinstance(message, AIMessage):
        return _answer(message)
    fields = _common(message)
    content = message.content if isinstance(message.content, str) else _copied(message.content)
    role = fields.pop("role", None)
    if role is not None:
        fields["additional_kwargs"].pop(_ROLE, None)  # the role says it
        return lc.ChatMessage(content=content, role=role, **fields)
    if isinstance(message, ToolMessage):
        return lc.ToolMessage(
            content=content,
            tool_call_id=message.tool_call_id,
            status=message.status,
            artifact=message.artifact,
            **fields,
        )
    kind = lc.SystemMessage if isinstance(message, SystemMessage) else lc.HumanMessage
    return kind(content=content, **fields)


def _copied(blocks: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [dict(block) for block in blocks]


def _common(message: BaseMessage, **kept: Any) -> _Fields:
    """What all messages have; `kept` and the extras are for the way back."""
    metadata = dict(message.response_metadata)
    theirs = metadata.pop(_THEIRS, {})
    extras = dict(message.extras)
    additional = dict(theirs.get("additional_kwargs", {}))
    if isinstance(message, SystemMessage) and extras.get("role") == "developer":
        additional[_ROLE] = extras.pop("role")
    kept = {name: value for name, value in {"extras": extras, **kept}.items() if value}
    if kept:
        additional[KEPT] = kept
    fields = {key: value for key, value in theirs.items() if key != "additional_kwargs"}
    return {
        **fields,
        "id": message.id,
        "name": message.name,
        "response_metadata": metadata,
        "additional_kwargs": additional,
    }


def _answer(message: AIMessage) -> lc.AIMessage:
    blocks = message.content_blocks
    provider = message.response_metadata.get("model_provider")
    plain = _is_plain(blocks, provider)
    beside = [_beside(block) for block in blocks] if plain else []
    fields = _common(
        message, finish_reason=message.finish_reason, beside=beside if any(beside) else None
    )
    if not plain:
        fields["response_metadata"]["output_version"] = "v1"
    return lc.AIMessage(
        content=message.text if plain else _copied(blocks),
        tool_calls=[_bare(call) for call in message.tool_calls],
        invalid_tool_calls=[_bare(call) for call in message.invalid_tool_calls],
        usage_metadata=_whole_usage(message.usage_metadata),
        **fields,
    )


_PLAIN_ORDER: Final = ("text", "tool_call", "invalid_tool_call")
_TEXT_KEYS: Final = frozenset({"type", "text", "id", "extras"})


def _is_plain(blocks: Sequence[Block], provider: str | None) -> bool:
    """Whether one text and the lists of calls, which LangChain has beside the content, say it all
    in the right order."""
    kinds = [block["type"] for block in blocks]
    if not set(kinds) <= set(_PLAIN_ORDER) or kinds.count("text") > 1:
        return False
    texts = [block for block in blocks if block["type"] == "text"]
    if any(not block.keys() <= _TEXT_KEYS or not block["text"] for block in texts):
        return False
    in_order = kinds == sorted(kinds, key=_PLAIN_ORDER.index)
    return in_order and ("tool_call" not in kinds or provider_shows_calls(provider))


@lru_cache(maxsize=64)
def provider_shows_calls(provider: str | None) -> bool:
    """Whether LangChain, reading an answer of `provider` whose content is a str, shows its tool
    calls among the content blocks. Where that vendor has them in the content, it does not."""
    if provider is None or get_translator(provider) is None:
        return True
    metadata = {"model_provider": provider}
    call = {"name": "f", "args": {}, "id": "1"}
    whole = lc.AIMessage("-", tool_calls=[call], response_metadata=metadata)
    return any(block["type"] == "tool_call" for block in whole.content_blocks)


def _beside(block: Block) -> _Fields:
    """What a block says that a str, or a call in LangChain's list, has no place for."""
    own = ("id", "extras") if block["type"] == "text" else ("extras",)
    return {key: block[key] for key in own if key in block}


def _bare(call: Mapping[str, Any]) -> _Fields:
    return {key: value for key, value in call.items() if key != "extras"}


def _whole_usage(usage: Mapping[str, Any] | None) -> Any:
    """LangChain wants all three counts."""
    if usage is None:
        return None
    return {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, **usage}


# ---- from LangChain ------------------------------------------------------------------------------


def from_langchain(message: lc.BaseMessage) -> BaseMessage:
    """A message of LangChain, of any of its chat models, as streamfold has it.

    Content in the native form of a provider that LangChain can read is read as content blocks.
    Raises ConfigurationError for what is no message to a model (`RemoveMessage`), and for a
    `FunctionMessage`, which does not say which call it answers.
    """
    if isinstance(message, lc.ChatMessage):
        return _of_role(message)
    made = next((make for kind, make in _FROM if isinstance(message, kind)), None)
    if made is None:
        raise ConfigurationError(
            f"a {type(message).__name__} ({shown(message)}) cannot be sent to a model: expected a "
            "HumanMessage, AIMessage, SystemMessage, ToolMessage or ChatMessage"
        )
    return made(message)


def _taken(message: lc.BaseMessage, *own: str) -> _Fields:
    """The fields of any message; `own`: those of its class that are taken otherwise."""
    additional = dict(message.additional_kwargs)
    kept = additional.pop(KEPT, {})
    extras = dict(kept.get("extras", {}))
    if isinstance(message, lc.SystemMessage) and additional.get(_ROLE) == "developer":
        extras["role"] = additional.pop(_ROLE)
    theirs = {"additional_kwargs": additional} if additional else {}
    theirs |= message.model_extra or {}
    theirs |= {key: getattr(message, key) for key in own}
    metadata = dict(message.response_metadata)
    if theirs:
        metadata[_THEIRS] = theirs
    return {
        "id": message.id,
        "name": message.name,
        "response_metadata": metadata,
        "extras": extras,
    }


def _of_role(message: lc.ChatMessage) -> BaseMessage:
    """A message whose role is a word: the word decides, as in a dict."""
    [made] = coerce_messages([{"role": message.role, "content": message.content}])
    fields = _taken(message, "role")
    return type(made)(made.content, **{**fields, "extras": {**made.extras, **fields["extras"]}})


def _human(message: Any) -> BaseMessage:
    return HumanMessage(message.content, **_taken(message))


def _system(message: Any) -> BaseMessage:
    return SystemMessage(message.content, **_taken(message))


def _tool(message: Any) -> BaseMessage:
    return ToolMessage(
        message.content,
        tool_call_id=message.tool_call_id,
        status=message.status,
        artifact=message.artifact,
        **_taken(message),
    )


def _ai(message: Any) -> BaseMessage:
    kept = message.additional_kwargs.get(KEPT, {})
    fields = _taken(message)
    whole = _kept_content(message, kept)
    if isinstance(message.content, list) or not message.content:
        fields["response_metadata"].pop("output_version", None)  # of LangChain's content, not ours
    return AIMessage(
        _content_of(message, kept) if whole is None else whole,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls if whole is None else [],
        usage_metadata=message.usage_metadata,
        finish_reason=kept.get("finish_reason"),
        **fields,
    )


def _kept_content(message: Any, kept: Mapping[str, Any]) -> list[Any] | None:
    """The content that was kept because LangChain could not have it so, if the text is the same.
    Calls are as LangChain has them: programs edit them before they are run."""
    whole = kept.get("content")
    if whole is None or _text_of(whole) != message.text:
        return None
    calls = {call["id"]: call for call in message.tool_calls}
    return [_in_place(block, calls) for block in whole]


def _content_of(message: Any, kept: Mapping[str, Any]) -> Any:
    """The content of an answer, calls included, as standard blocks or as it is."""
    if isinstance(message.content, str):
        return _with_beside(message, kept.get("beside", []))
    provider = message.response_metadata.get("model_provider")
    standard = message.response_metadata.get("output_version") == "v1"
    native = not standard and provider is not None and get_translator(provider) is not None
    blocks = message.content_blocks if native else message.content
    calls = {call["id"]: call for call in (*message.tool_calls, *message.invalid_tool_calls)}
    return [_in_place(block, calls) for block in blocks]


def _text_of(blocks: Sequence[Mapping[str, Any]]) -> str:
    return "".join(block.get("text", "") for block in blocks if block.get("type") == "text")


def _with_beside(message: Any, beside: Sequence[Mapping[str, Any]]) -> Any:
    """A str and its calls, each with what was kept of it, if they are still as many."""
    texts = [{"type": "text", "text": message.content}] if message.content else []
    blocks = [*texts, *message.tool_calls, *message.invalid_tool_calls]
    if len(blocks) != len(beside):
        return message.content
    return [{**block, **more} for block, more in zip(blocks, beside, strict=True)]


#: Blocks that stand for a call which is in LangChain's list, too, and where they have its id.
_CALL_IDS: Final = {
    "tool_call": "id",
    "tool_call_chunk": "id",
    "tool_use": "id",
    "function_call": "call_id",
}


def _in_place(block: Any, calls: Mapping[Any, Mapping[str, Any]]) -> Any:
    """A block without the mark by which LangChain adds chunks up; a call as the list has it."""
    if not isinstance(block, Mapping):
        return block
    id = block.get(_CALL_IDS.get(block.get("type", ""), ""))
    call = calls.get(id) if id else None
    if call is not None:
        return {**call, **({"extras": block["extras"]} if block.get("extras") else {})}
    if block.get("type") == "thinking":  # Anthropic's, written by hand: others take no such part
        rest = {key: value for key, value in block.items() if key not in ("type", "thinking")}
        return {"type": "reasoning", "reasoning": block["thinking"], "extras": rest}
    return {key: value for key, value in block.items() if key != "index"}


_FROM: Final[tuple[tuple[type[Any], Callable[[Any], BaseMessage]], ...]] = (
    (lc.AIMessage, _ai),
    (lc.HumanMessage, _human),
    (lc.SystemMessage, _system),
    (lc.ToolMessage, _tool),
)
