"""What the embedded model answers: from a read request to an `Answer`, by rules in a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

from streamfold.testing.answers import Answer, Call, Found, Prompt, Tool, ident
from streamfold.testing.examples import example
from streamfold.testing.prose import (
    nouns,
    pieces,
    quote_results,
    reply_to,
    think_about,
    tokens,
)

__all__ = ["plan"]

_MAX_CALLS = 4
# Words that share their first letters share their meaning often enough, also in Russian.
_STEM = 4


def plan(prompt: Prompt) -> Answer:
    """The answer to `prompt`: the first rule that holds, then reasoning, then the limits."""
    rule = next(rule for holds, rule in _RULES if holds(prompt))
    answer = rule(prompt)
    if prompt.reasoning:
        answer = msgspec.structs.replace(answer, reasoning=think_about(prompt.user))
    return _limited(_stopped(answer, prompt.stop), prompt.max_tokens)


# -- the rules


def _must_call(prompt: Prompt) -> bool:
    # Vendors honour a forced call also after a tool result; only "auto" lets the model conclude.
    insisted = prompt.choice in ("any", "one")
    return bool(prompt.tools) and (insisted or (prompt.choice == "auto" and not prompt.results))


def _call_tools(prompt: Prompt) -> Answer:
    tool = _chosen(prompt)
    names = nouns(prompt.user)
    several = prompt.parallel and prompt.choice != "one"
    subjects = [[name] for name in names[:_MAX_CALLS]] if several and names else [names]
    arguments = [_arguments(tool, subject, prompt.user) for subject in subjects]
    distinct = [args for n, args in enumerate(arguments) if args not in arguments[:n]]
    return Answer(tool_calls=[Call(tool.name, args) for args in distinct])


def _chosen(prompt: Prompt) -> Tool:
    if prompt.choice == "one":
        return next(tool for tool in prompt.tools if tool.name == prompt.forced)
    asked = _stems(prompt.user)
    return max(
        prompt.tools, key=lambda tool: len(asked & _stems(f"{tool.name} {tool.description}"))
    )


def _stems(text: str) -> set[str]:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return {word[:_STEM] for word in words if len(word) >= _STEM}


def _arguments(tool: Tool, subject: list[str], text: str) -> dict[str, Any]:
    value = example({"type": "object", **tool.schema}, nouns=subject, text=text)
    return value if isinstance(value, dict) else {}


def _structured(prompt: Prompt) -> Answer:
    schema = prompt.schema or _described(prompt.context)
    if schema is None:
        value = {"answer": reply_to(prompt.user, prompt.media)}
    else:
        value = example(schema, nouns=nouns(prompt.user), text=prompt.user)
    return Answer(text=json.dumps(value, ensure_ascii=False))


def _described(context: str) -> dict[str, Any] | None:
    """The first JSON schema written out in the prompt: how JSON mode is told its form."""
    return next((v for v in _json_objects(context) if "properties" in v), None)


def _json_objects(text: str) -> Iterator[dict[str, Any]]:
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            yield value
        start = text.find("{", end)


def _quote(prompt: Prompt) -> Answer:
    return Answer(text=quote_results(prompt.user, prompt.results))


def _search(prompt: Prompt) -> Answer:
    query = " ".join(prompt.user.split())[:80].strip(" .!?") or "news"
    page = ident(prompt.seed, "page", 8)
    excerpt = f"An article of the embedded provider about {query}."
    found = Found(query, f"About {query}", f"https://example.com/articles/{page}", excerpt)
    return Answer(text=reply_to(prompt.user, prompt.media), found=found)


def _talk(prompt: Prompt) -> Answer:
    return Answer(text=reply_to(prompt.user, prompt.media))


_Rule: TypeAlias = tuple[Callable[[Prompt], bool], Callable[[Prompt], Answer]]

_RULES: tuple[_Rule, ...] = (
    (_must_call, _call_tools),
    (lambda prompt: prompt.schema is not None, _structured),
    (lambda prompt: bool(prompt.results), _quote),
    (lambda prompt: prompt.search, _search),
    (lambda prompt: True, _talk),
)


# -- the limits


def _stopped(answer: Answer, stop: list[str]) -> Answer:
    places = [(answer.text.find(word), word) for word in stop if word and word in answer.text]
    if not places:
        return answer
    place, word = min(places)
    return msgspec.structs.replace(answer, text=answer.text[:place], stopped_by=word)


def _limited(answer: Answer, limit: int | None) -> Answer:
    """Cut after `limit` tokens, in the order in which they would be streamed."""
    if limit is None:
        return answer
    budget = _Budget(limit)
    if answer.found is not None:
        budget.spend(tokens(answer.found.query))
    reasoning = budget.spend(tokens(answer.reasoning))
    text = budget.spend(tokens(answer.text))
    calls = [Call(call.name, budget.spend(pieces(call.text)), call.id) for call in answer.calls]
    if not budget.exceeded:
        return answer
    return msgspec.structs.replace(
        answer,
        reasoning=reasoning,
        text=text,
        tool_calls=[call for call in calls if call.text],
        finish="length",
        stopped_by=None,
    )


class _Budget:
    def __init__(self, left: int) -> None:
        self.left = left
        self.exceeded = False

    def spend(self, parts: list[str]) -> str:
        kept = parts[: self.left]
        self.exceeded = self.exceeded or len(kept) < len(parts)
        self.left -= len(kept)
        return "".join(kept)
