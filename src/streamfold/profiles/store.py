"""Where profiles are kept: one JSON file a provider, read when it is first needed.

A file is a table with one line a model, so that what a refresh changed can be read in a diff:

    {"abilities": ["open_weights", "text_inputs", "image_inputs", ...],
     "columns": ["name", "release_date", "max_input_tokens", ...],
     "models": {"gpt-4.1": ["-++...", "GPT-4.1", "2025-04-14", 1047576, ...], ...}}

A line begins with one character for each ability (+ yes, - no, . not known); then come the values
of the columns. null is "not known", and so is what the line is too short for.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from ..errors import ConfigurationError
from .keys import ABILITIES, PRICES

__all__ = ["ENV", "SOURCES", "Table", "canonical", "provider_names", "table"]

#: The variable that names a folder whose files count before those of the package.
ENV: Final = "STREAMFOLD_PROFILES_DIR"

#: The files there are, and the providers of models.dev that fill each.
SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "openai": ("openai",),
    "azure_openai": ("azure",),
    "anthropic": ("anthropic",),
    "google_genai": ("google",),
    "google_vertexai": ("google-vertex", "google-vertex-anthropic"),
    "bedrock": ("amazon-bedrock",),
    "huggingface": ("huggingface",),
    "ollama": ("ollama-cloud",),
    "cohere": ("cohere",),
    "together": ("togetherai",),
    "groq": ("groq",),
    "mistralai": ("mistral",),
    "deepseek": ("deepseek",),
    "fireworks": ("fireworks-ai",),
    "xai": ("xai",),
    "perplexity": ("perplexity",),
    "openrouter": ("openrouter",),
    "nvidia": ("nvidia",),
    "cerebras": ("cerebras",),
    "upstage": ("upstage",),
    "lmstudio": ("lmstudio",),
}

#: Other names of these: vendors that share a file, and what models.dev calls them.
_SAME: Final = {
    "bedrock_converse": "bedrock",
    "azure_anthropic": "azure_openai",
    "google_anthropic_vertex": "google_vertexai",
    **{id.replace("-", "_"): name for name, ids in SOURCES.items() for id in ids},
}

#: The order of the columns, those that most models have first; other keys come last.
_COLUMNS: Final = (
    "name",
    "release_date",
    "last_updated",
    "max_input_tokens",
    "max_output_tokens",
    *PRICES,
    "reasoning_effort_levels",
    "reasoning_effort_default",
    "price_tiers",
    "status",
)


def provider_names() -> list[str]:
    """The providers that the package has profiles of."""
    return list(SOURCES)


def canonical(provider: str) -> str:
    """The name of the file that holds `provider`'s models, without its ending."""
    name = provider.strip().lower().replace("-", "_")
    return _SAME.get(name, name)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    abilities: list[str]
    columns: list[str]
    models: dict[str, list[Any]]


class Table(Mapping[str, dict[str, Any]]):
    """The profiles of one provider, by model id; each reading makes a new dict."""

    def __init__(self, file: _File):
        self._file = file
        #: What `lookup` remembers about the ids.
        self.indexes: dict[Any, dict[str, list[str]]] = {}

    @classmethod
    def of(cls, profiles: Mapping[str, Mapping[str, Any]]) -> Table:
        """The table of these profiles, in alphabetical order."""
        keys = {key for profile in profiles.values() for key in profile}
        abilities = [key for key in ABILITIES if key in keys]
        columns = [key for key in _COLUMNS if key in keys]
        columns += sorted(keys - {*abilities, *columns})
        rows = {id: _row(profiles[id], abilities, columns) for id in sorted(profiles)}
        return cls(_File(abilities, columns, rows))

    @classmethod
    def decode(cls, data: bytes) -> Table:
        """The table in a file. Raises msgspec.DecodeError or ValueError if it is none."""
        file = _decode(data)
        widest = len(file.columns) + 1
        for id, row in file.models.items():
            if not 1 <= len(row) <= widest or not isinstance(row[0], str):
                raise ValueError(f"the line of {id!r} does not fit the columns")
        return cls(file)

    def encode(self) -> bytes:
        """The bytes of a file, the same for equal tables."""
        abilities, columns = _encode(self._file.abilities), _encode(self._file.columns)
        rows = (_encode(id) + b":" + _encode(row) for id, row in self._file.models.items())
        head = b'{"abilities":%b,\n"columns":%b,\n"models":{\n' % (abilities, columns)
        return head + b",\n".join(rows) + b"}}\n"

    def __getitem__(self, id: str) -> dict[str, Any]:
        flags, *values = self._file.models[id]
        said = {k: v for k, v in zip(self._file.columns, values, strict=False) if v is not None}
        for key, flag in zip(self._file.abilities, flags, strict=False):
            if flag in "+-":
                said[key] = flag == "+"
        return {k: copy.deepcopy(v) if isinstance(v, list | dict) else v for k, v in said.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.models)

    def __len__(self) -> int:
        return len(self._file.models)


def _row(profile: Mapping[str, Any], abilities: list[str], columns: list[str]) -> list[Any]:
    flags = "".join(".-+"[1 + profile[key] if key in profile else 0] for key in abilities)
    row: list[Any] = [flags, *(profile.get(key) for key in columns)]
    while row[-1] is None:
        row.pop()
    return row


_PACKAGE: Final = __name__.rpartition(".")[0]
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_File).decode


# ---- reading -------------------------------------------------------------------------------------

_tables: dict[tuple[str, str], Table] = {}


def table(provider: str, folder: str | None = None) -> Table:
    """The profiles of `provider`, of `folder` (default: what STREAMFOLD_PROFILES_DIR names) or, if
    it has none of them, of the package. Empty if nobody has.

    A file that cannot be read is reported to the log "streamfold", and the package's counts.
    """
    name = canonical(provider)
    place = (os.environ.get(ENV, "") if folder is None else folder, name)
    found = _tables.get(place)
    if found is None:
        found = _tables[place] = _own_table(*place) or _packaged(name)
    return found


def forget() -> None:
    """Read the files anew when they are next needed."""
    _tables.clear()


def read_table(path: str) -> Table | None:
    """The table in a file, or None if there is none. Raises ConfigurationError, with the path."""
    try:
        with open(path, "rb") as file:
            return Table.decode(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"the profiles in {path} are not readable: {error}") from error


def path_in(folder: str, name: str) -> str:
    return os.path.join(folder, f"{name}.json")


def _own_table(folder: str, name: str) -> Table | None:
    if not folder or not name.isidentifier():
        return None
    try:
        return read_table(path_in(os.path.expanduser(folder), name))
    except ConfigurationError as error:
        import logging

        logging.getLogger("streamfold").warning("%s; the packaged ones are used", error)
        return None


def _packaged(name: str) -> Table:
    if name not in SOURCES:
        return Table(_File([], [], {}))
    return Table.decode(packaged_bytes(f"{name}.json"))


def packaged_bytes(file: str) -> bytes:
    """A file of the package's `data`, wherever the package is (a folder or a zip)."""
    import pkgutil

    data = pkgutil.get_data(_PACKAGE, f"data/{file}")
    assert data is not None, f"{file} is missing in the installed package"
    return data
