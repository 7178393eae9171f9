"""Which subset of JSON schema each vendor takes.

The rules are from the vendors' pages on structured output:

- https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
- https://platform.claude.com/docs/en/build-with-claude/structured-outputs (Bedrock: the same)
- https://ai.google.dev/api/generate-content#generationconfig (`responseJsonSchema`)
- https://docs.cohere.com/docs/structured-outputs (and the parameter types beside it)
- Ollama: the converter of llama.cpp, common/json-schema-to-grammar.cpp
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

__all__ = ["CLAUDE", "COHERE", "GEMINI", "OLLAMA", "OPENAI", "Rules", "rules_of"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a vendor takes.

    - `takes`: keywords that narrow values, and which of their values (see `_only`);
    - `combines`: the combinators; any other is said as `anyOf` where that says the same;
    - `closed`: an object has the properties that it lists and no further ones;
    - `complete`: every property is required, and one that may be left out is null instead;
    - `some_required`: every object has a property that is required;
    - `typed`: every part says its type;
    - `optional`: answers are held to a schema only if that is asked for (`strict`);
    - `strict_tools`: calls of tools can be held to their schemas;
    - `most_optional`, `most_unions`: how many properties in all may be left out, and how many may
      be of several types (None: any number);
    - `cycles`: where a class may hold itself: anywhere, in optional properties, or nowhere.
    """

    vendor: str
    takes: Mapping[str, Callable[[Any], bool]]
    combines: frozenset[str] = frozenset({"anyOf"})
    closed: bool = False
    complete: bool = False
    some_required: bool = False
    typed: bool = False
    optional: bool = False
    strict_tools: bool = True
    most_optional: int | None = None
    most_unions: int | None = None
    cycles: Literal["anywhere", "optional", "nowhere"] = "anywhere"


def any_value(value: Any) -> bool:
    return True


def _only(*values: Any) -> Callable[[Any], bool]:
    return frozenset(values).__contains__


def _keywords(words: str) -> dict[str, Callable[[Any], bool]]:
    return dict.fromkeys(words.split(), any_value)


def _simple_values(values: Any) -> bool:
    return all(value is None or isinstance(value, str | int | float) for value in values)


def _simple_value(value: Any) -> bool:
    return _simple_values([value])


def _words_or_numbers(values: Any) -> bool:
    return all(type(value) in (str, int, float) for value in values)


def _without_lookaround(pattern: Any) -> bool:
    return "(?" not in str(pattern)


def _anchored(pattern: Any) -> bool:
    return re.fullmatch(r"\^.*\$", str(pattern)) is not None and _without_lookaround(pattern)


def _unanchored(pattern: Any) -> bool:
    return not re.search(r"[$^]|\(\?", str(pattern))


_FORMATS: Final = tuple("date-time time date duration email hostname ipv4 ipv6 uuid".split())
_NUMBERS: Final = "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf"

OPENAI: Final = Rules(
    vendor="OpenAI's strict mode",
    takes={
        **_keywords(f"title description minItems maxItems {_NUMBERS}"),
        "enum": _simple_values,
        "const": _simple_value,
        "format": _only(*_FORMATS),
        "pattern": _without_lookaround,
    },
    closed=True,
    complete=True,
    typed=True,
    optional=True,
)
CLAUDE: Final = Rules(
    vendor="Claude's structured output",
    takes={
        **_keywords("title description"),
        "enum": _simple_values,
        "const": _simple_value,
        "format": _only(*_FORMATS, "uri"),
        "minItems": _only(0, 1),
    },
    closed=True,
    typed=True,
    most_optional=24,
    most_unions=16,
    cycles="nowhere",
)
GEMINI: Final = Rules(
    vendor="Gemini",
    takes={
        **_keywords("title description format minimum maximum minItems maxItems prefixItems"),
        **_keywords("propertyOrdering"),
        "enum": _words_or_numbers,
    },
    cycles="optional",
)
COHERE: Final = Rules(
    vendor="Cohere's structured output",
    takes={
        **_keywords("title description default"),
        "enum": _simple_values,
        "const": _simple_value,
        "format": _only("date-time", "uuid", "date", "time"),
        "pattern": _unanchored,
    },
    some_required=True,
)
OLLAMA: Final = Rules(
    vendor="Ollama's grammars",
    takes={
        **_keywords(f"title description default enum const format {_NUMBERS}"),
        **_keywords("minLength maxLength minItems maxItems prefixItems uniqueItems"),
        "pattern": _anchored,
    },
    combines=frozenset({"anyOf", "oneOf", "allOf"}),
    strict_tools=False,
)


def rules_of(dialect: str) -> Rules:
    """The rules of the vendors that speak a dialect; those of OpenAI where there are no others."""
    return _RULES.get(dialect, OPENAI)


_RULES: Final = {
    "anthropic": CLAUDE,
    "bedrock": replace(CLAUDE, vendor="Bedrock's structured output"),
    "cohere": COHERE,
    "gemini": GEMINI,
    "ollama": OLLAMA,
}
