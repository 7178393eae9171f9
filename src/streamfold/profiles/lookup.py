"""A model's profile by its name, however the name is written.

The exact id counts. Else the name is compared in ever looser ways, and the first that finds
something ends the search: other spelling (upper case, `models/...`, `:latest`, a path before the
id); Bedrock's versions, then its regions; another variant (`:nitro`); another date
(`gpt-4.1-2025-04-14` for `gpt-4.1`, `claude-3-5-sonnet-latest` for the newest one).

What a model can do is the same under such names. What it costs need not be: prices are left out
where the models that fit do not agree on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .keys import PRICES
from .store import Table, table

__all__ = ["Match", "match", "price_list", "profile"]

_PRICE_KEYS: Final = (*PRICES, "price_tiers")


def profile(provider: str, model: str) -> dict[str, Any]:
    """What is known of a model: a new dict with the keys of `ModelProfile`; empty if nothing is.

    Never raises. Reads the file of this provider when it is first asked for.
    """
    found = match(provider, model)
    if found is None:
        return {}
    said = table(provider)[found.id]
    return said if found.priced else _without_prices(said)


class Match(NamedTuple):
    """The model that a name means, and whether its prices are those of the name."""

    id: str
    priced: bool


def match(provider: str, model: str) -> Match | None:
    """The id under which the profile of `model` is kept; None if there is none."""
    if not isinstance(provider, str) or not isinstance(model, str) or not model.strip():
        return None
    known = table(provider)
    if model in known:
        return Match(model, True)
    for way in _WAYS:
        ids = _fitting(known, way, model)
        if ids:
            return _choose(known, way, model, ids)
    return None


def price_list(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile says of prices."""
    return {key: said[key] for key in _PRICE_KEYS if key in said}


def _without_prices(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key not in _PRICE_KEYS}


# ---- ways to write a name, each looser than the one before ---------------------------------------

_FOLDER: Final = re.compile(r"^(?:.*/)?(?:models|routers)/")
_SPELT: Final = re.compile(r"(?::latest|@default|@latest|[:-]cloud)$")
_REGION: Final = re.compile(r"^(?:global|us-gov|us|eu|apac|ap|au|jp|ca|sa|me|af|in)\.")
_VERSION: Final = re.compile(r"(?:-v?\d+(?::\d+)+k?|-v1)$")
_VARIANT: Final = re.compile(r":[a-z][a-z0-9-]*$")
_MONTH: Final = "(?:0[1-9]|1[0-2])"
_DATE: Final = re.compile(
    rf"(?:-20\d\d-?{_MONTH}-?[0-3]\d"  # 2025-04-14, 20250414
    rf"|-20\d\d-{_MONTH}"
    rf"|-2[2-9]{_MONTH}|-{_MONTH}[0-3]\d"  # 2411, 0613
    rf"|(?:-preview)?-{_MONTH}-(?:20\d\d|[0-3]\d)"  # 08-2024, preview-05-06
    r"|-00\d|-latest)$"
)


def _spelling(name: str) -> str:
    name = name.strip().lower()
    if name.startswith("arn:"):  # an inference profile of Bedrock
        name = name.rpartition("/")[2]
    name = _SPELT.sub("", _FOLDER.sub("", name)).replace("@", "-")
    return name.replace("gpt-35", "gpt-3.5")  # Azure


def _version(name: str) -> str:
    return _VERSION.sub("", _spelling(name))


def _region(name: str) -> str:
    return _REGION.sub("", _version(name))


def _variant(name: str) -> str:
    return _VARIANT.sub("", _region(name))


def _family(name: str) -> str:
    return _DATE.sub("", _variant(name))


_Way = Callable[[str], str]
_WAYS: Final[tuple[_Way, ...]] = (_spelling, _version, _region, _variant, _family)


# ---- finding -------------------------------------------------------------------------------------


def _fitting(known: Table, way: _Way, model: str) -> list[str]:
    """The ids that are `model` when written that way; one may have a path before it."""
    wanted = way(model)
    near = _index(known, way).get(_last(wanted), ())
    return [id for id in near if _ends_like(wanted, way(id))]


def _index(known: Table, way: _Way) -> dict[str, list[str]]:
    index = known.indexes.get(way)
    if index is None:
        index = {}
        for id in known:
            index.setdefault(_last(way(id)), []).append(id)
        known.indexes[way] = index
    return index


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _ends_like(one: str, other: str) -> bool:
    return one == other or one.endswith("/" + other) or other.endswith("/" + one)


def _choose(known: Table, way: _Way, model: str, ids: list[str]) -> Match:
    id = max(ids, key=lambda id: _rank(id, known[id]))
    if way is _variant:
        return Match(id, False)
    # An alias means the newest of its models, whatever the older ones cost.
    alias = way is _family and _variant(model).removesuffix("-latest") == _family(model)
    return Match(id, alias or _agree(known, ids))


def _rank(id: str, said: dict[str, Any]) -> tuple[bool, bool, str, int, str]:
    """Which of several ids is meant: the alias, else the newest, else the one that says least."""
    plain = _variant(id)
    date = said.get("release_date", "")
    return plain == _family(id), plain.endswith("-latest"), date, -len(id), id


def _agree(known: Table, ids: list[str]) -> bool:
    first, *others = (price_list(known[id]) for id in ids)
    return all(other == first for other in others)
