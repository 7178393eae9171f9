"""What is added to the source: `profile_augmentations.toml`.

For one provider it is a file of this shape, as LangChain has it:

    provider = "openai"                 # may be left out: then it is for whichever is refreshed

    [overrides]                         # all models of the provider
    tool_choice = true

    [overrides."gpt-4.1"]               # one model; a new one, where the source does not have it
    max_input_tokens = 100_000

    [overrides."gpt-4o*"]               # the models that fit a pattern
    image_url_inputs = true

For several, the same in a table of each: `[openai.overrides]`, `[openai.overrides."gpt-4.1"]`.
A model counts before a pattern, a pattern before the provider, and a later pattern before an
earlier one. What needs something else (`tool_choice` needs `tool_calling`), and is said of a
provider or a pattern, is said only of those of its models that have this.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from ..errors import ConfigurationError
from .keys import KEYS, ModelProfile
from .store import canonical, packaged_bytes

__all__ = ["FILE", "Overrides", "ours", "overrides_for", "parse"]

FILE: Final = "profile_augmentations.toml"

_WILD: Final = "*?["
#: What a model can only have if it has something else.
_NEEDS: Final = {
    "image_url_inputs": "image_inputs",
    "image_tool_message": "image_inputs",
    "pdf_tool_message": "pdf_inputs",
    "tool_choice": "tool_calling",
    "tool_call_streaming": "tool_calling",
    "mid_conversation_tools": "tool_calling",
    "mid_conversation_system_messages": "text_outputs",
    "reasoning_effort_default": "reasoning_effort_levels",
}


class Overrides(msgspec.Struct):
    """What is said of the models of one provider."""

    everywhere: dict[str, Any] = {}
    patterns: dict[str, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}

    def apply(
        self, profiles: Mapping[str, Mapping[str, Any]], *, add: bool
    ) -> dict[str, dict[str, Any]]:
        """The profiles with this said of them; `add`: and with the models that only this knows."""
        ids = list(profiles)
        if add:
            ids += [id for id in self.models if id not in profiles]
        return {id: self._merged(id, profiles.get(id, {})) for id in ids}

    def _merged(self, id: str, profile: Mapping[str, Any]) -> dict[str, Any]:
        fitting = [said for pattern, said in self.patterns.items() if fnmatchcase(id, pattern)]
        merged = dict(profile)
        for said in (self.everywhere, *fitting):
            merged |= {key: value for key, value in said.items() if key not in _NEEDS}
        for said in (self.everywhere, *fitting):
            merged |= {key: value for key, value in said.items() if _fits(key, value, merged)}
        return merged | self.models.get(id, {})

    def unknown_keys(self) -> list[str]:
        """Keys that no profile has: kept, but probably misspelt."""
        said = (self.everywhere, *self.patterns.values(), *self.models.values())
        return sorted({key for values in said for key in values if key not in KEYS})


def _fits(key: str, value: Any, profile: Mapping[str, Any]) -> bool:
    """Whether a profile can have this."""
    if key not in _NEEDS or value is False:
        return True
    needed = profile.get(_NEEDS[key])
    return value in needed if isinstance(needed, list) else bool(needed)


def ours(provider: str) -> Overrides:
    """What the package says of a provider's models."""
    return overrides_for(provider, parse(packaged_bytes(FILE), FILE), FILE)


# ---- reading -------------------------------------------------------------------------------------


def parse(data: bytes, path: str) -> dict[str, Any]:
    """The tables of a file. Raises ConfigurationError, with the line, if it is not TOML."""
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error


def overrides_for(provider: str, tables: Mapping[str, Any], path: str) -> Overrides:
    """What the tables say of a provider's models. Raises ConfigurationError, with the model and
    the key, for values that a profile cannot have."""
    mine = [_table(tables, "overrides", path)] if _is_for(provider, tables, path) else []
    for name, table in tables.items():
        if name in ("provider", "overrides"):
            continue
        if not isinstance(table, dict) or not table.keys() <= {"overrides"}:
            raise ConfigurationError(
                f"{path}: {name!r} is unknown: expected provider, [overrides] or "
                "[PROVIDER.overrides]"
            )
        if canonical(name) == provider:
            mine.append(_table(table, "overrides", path))
    return _joined(mine, path)


def _is_for(provider: str, tables: Mapping[str, Any], path: str) -> bool:
    named = tables.get("provider", provider)
    if not isinstance(named, str):
        raise ConfigurationError(f"{path}: provider is {named!r}: expected a name")
    return canonical(named) == provider


def _table(tables: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    table = tables.get(key, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: {key} is {table!r}: expected a table")
    return table


def _joined(tables: Iterable[Mapping[str, Any]], path: str) -> Overrides:
    said = Overrides()
    for table in tables:
        for key, value in table.items():
            if not isinstance(value, dict):
                said.everywhere |= _checked({key: value}, f"{path}: [overrides]")
            else:
                place = said.patterns if any(c in key for c in _WILD) else said.models
                place.setdefault(key, {}).update(_checked(value, f'{path}: [overrides."{key}"]'))
    return said


def _checked(values: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        known: dict[str, Any] = dict(msgspec.convert(values, ModelProfile))
        msgspec.json.encode(values)
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigurationError(f"{where}: {error}") from error
    return {**values, **known}  # whole prices become floats


def nearest_key(key: str) -> str | None:
    near = difflib.get_close_matches(key, KEYS, n=1)
    return near[0] if near else None
