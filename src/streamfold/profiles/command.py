"""`streamfold profiles`: list, show, refresh."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ..errors import ConfigurationError, StreamfoldError
from .keys import KEYS
from .lookup import match, profile
from .store import ENV, canonical, provider_names, table

__all__ = ["add_commands"]

Run = Callable[[argparse.Namespace], int]

_EXAMPLES: Final = f"""\
examples:
  streamfold profiles list openai --tool-calling --image-inputs
  streamfold profiles show anthropic:claude-sonnet-4-5
  streamfold profiles refresh --provider openai --data-dir ~/profiles
  streamfold profiles refresh --provider all --data-dir ~/profiles --source api.json

environment:
  {ENV}  a folder that refresh wrote; its files count before the packaged ones
"""

_REFRESH: Final = """\
Write the newest profiles of a provider into a folder, with what profile_augmentations.toml in the
folder says merged over them:

  provider = "openai"          # may be left out: then it is for whichever is refreshed

  [overrides]                  # all models of the provider
  tool_choice = true

  [overrides."my-model"]       # one model (or a pattern such as "gpt-4o*")
  max_input_tokens = 100_000

The file is replaced at once or, on any failure, not at all.
"""

#: Abilities that `list` can ask for, and the words that it shows.
_WORDS: Final = {
    "tool_calling": "tools",
    "structured_output": "json",
    "reasoning_output": "reasoning",
    "image_inputs": "image",
    "pdf_inputs": "pdf",
    "audio_inputs": "audio",
    "video_inputs": "video",
    "open_weights": "open",
}


def add_commands(subparsers: Any) -> argparse.ArgumentParser:
    """Add `profiles` to the commands. Each subcommand sets `run`, a function from the parsed
    arguments to the exit code: 0; 1 when something failed; 2 for mistakes in the command."""
    parser = _parser(subparsers, "profiles", "what models can do and cost", None)
    parser.epilog = _EXAMPLES
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_list(commands)
    _add_show(commands)
    _add_refresh(commands)
    return parser


def _parser(subparsers: Any, name: str, help: str, run: Run | None) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if run is not None:
        parser.set_defaults(run=_reporting(run))
    return parser


def _add_list(commands: Any) -> None:
    parser = _parser(commands, "list", "list models", _list)
    parser.add_argument("provider", nargs="?", help="such as openai; all where it is left out")
    parser.add_argument("--provider", dest="named", metavar="P", help="the same")
    _add_common(parser)
    for key, word in _WORDS.items():
        flag = "--" + key.replace("_", "-")
        parser.add_argument(
            flag, dest="wanted", action="append_const", const=key, help=f"only models with {word!r}"
        )


def _add_show(commands: Any) -> None:
    parser = _parser(commands, "show", "show all that is known of a model", _show)
    parser.add_argument("model", metavar="PROVIDER:MODEL", help="such as openai:gpt-4.1")
    parser.add_argument("--provider", dest="named", metavar="P", help="if MODEL has none")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="D", help=f"the folder to read (default: ${ENV})")
    parser.add_argument("--json", action="store_true", help="as JSON, one line a model")


def _add_refresh(commands: Any) -> None:
    parser = _parser(commands, "refresh", "get newer profiles", _refresh)
    parser.description = _REFRESH
    parser.add_argument("--provider", required=True, metavar="P", help="such as openai, or all")
    parser.add_argument("--data-dir", required=True, metavar="D", help="the folder to write into")
    parser.add_argument(
        "--source", default="", metavar="FILE-OR-URL", help="an api.json (default: models.dev's)"
    )


def _reporting(run: Run) -> Run:
    """`run`, with errors as one line to stderr and an exit code."""

    def reporting(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except StreamfoldError as error:
            _complain(str(error))
            return 2 if isinstance(error, ConfigurationError) else 1

    return reporting


def _complain(text: str) -> None:
    print(f"streamfold: {_printable(' '.join(text.split()))}", file=sys.stderr)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# ---- list ----------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    wanted = options.named or options.provider
    names = [_checked_provider(wanted, options.data_dir)] if wanted else provider_names()
    models = [
        (f"{name}:{id}", said)
        for name in names
        for id, said in table(name, options.data_dir).items()
        if all(said.get(key) for key in options.wanted or ())
    ]
    if not models:
        _complain("no model has all that")
        return 1
    for line in _json_lines(models) if options.json else _columns(_rows(models)):
        print(line)
    return 0


def _checked_provider(name: str, folder: str | None) -> str:
    known = canonical(name)
    if not table(known, folder):
        raise ConfigurationError(
            f"there are no profiles of provider {name!r}: known are {', '.join(provider_names())}"
        )
    return known


def _json_lines(models: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    for id, said in models:
        yield msgspec.json.encode({"model": id, **_ordered(said)}).decode()


def _rows(models: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, ...]]:
    yield ("MODEL", "INPUT", "OUTPUT", "ABILITIES", "$ IN", "$ OUT", "$ CACHED")
    for id, said in models:
        yield (
            id,
            _tokens(said.get("max_input_tokens")),
            _tokens(said.get("max_output_tokens")),
            " ".join(word for key, word in _WORDS.items() if said.get(key)) or "-",
            _price(said.get("input_price")),
            _price(said.get("output_price")),
            _price(said.get("cache_read_price")),
        )


def _columns(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Lines in which the columns stand below each other, numbers to the right."""
    cells = [tuple(map(_printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            cell.ljust(width) if number in (0, 3) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()


def _tokens(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _price(price: float | None) -> str:
    return "-" if price is None else f"{price:g}"


# ---- show ----------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    provider, name = _split(options)
    found = match(provider, name)
    if found is None:
        raise ConfigurationError(
            f"there is no profile of {name!r} of {provider}: see streamfold profiles list"
        )
    said = _ordered(profile(provider, name))
    if options.json:
        print(msgspec.json.encode(said).decode())
        return 0
    print(_printable(f"{provider}:{name}" + (f" (as {found.id})" if found.id != name else "")))
    width = max(map(len, said))
    for key, value in said.items():
        print(_printable(f"  {key:{width}}  {_shown(value)}"))
    return 0


def _split(options: argparse.Namespace) -> tuple[str, str]:
    """Provider and model; what is before the first colon counts only if it is a provider."""
    prefix, colon, rest = options.model.partition(":")
    if options.named:
        return canonical(options.named), options.model
    if colon and rest and table(prefix):
        return canonical(prefix), rest
    having = [name for name in provider_names() if match(name, options.model)]
    written = ", ".join(f"{name}:{options.model}" for name in having)
    raise ConfigurationError(
        f"{options.model!r} names no provider: write "
        + (written or "PROVIDER:MODEL, such as openai:gpt-4.1")
    )


def _ordered(said: Mapping[str, Any]) -> dict[str, Any]:
    keys = [*(k for k in KEYS if k in said), *(k for k in said if k not in KEYS)]
    return {key: said[key] for key in keys}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# ---- refresh -------------------------------------------------------------------------------------


def _refresh(options: argparse.Namespace) -> int:
    from .refresh import refresh

    done = refresh(options.provider, options.data_dir, options.source)
    for one in done:
        for warning in one.warnings:
            _complain(f"warning: {warning}")
        for line in _report(one):
            print(_printable(line))
    return 0


def _report(one: Any) -> Iterator[str]:
    counts = (
        "all new"
        if one.first
        else f"{len(one.added)} added, {len(one.removed)} removed, {len(one.changed)} changed"
    )
    yield f"{one.provider}: {one.models} models, {counts} -> {one.path}"
    if one.first:
        return
    yield from (f"  + {id}" for id in one.added)
    yield from (f"  - {id}" for id in one.removed)
    for id, changes in one.changed.items():
        for key, (old, new) in changes.items():
            yield f"  ~ {id}: {key} {_known(old)} -> {_known(new)}"


def _known(value: Any) -> str:
    return "unknown" if value is None else _shown(value)
