"""The run configuration: what a call is told besides its input.

A plain dict with the keys below; all are optional. It is checked before anything is sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypedDict
from uuid import UUID

from .callbacks import check_handlers
from .errors import ConfigurationError

__all__ = [
    "Inherited",
    "RunnableConfig",
    "checked_config",
    "config_for_each",
    "for_other_runs",
    "merge_configs",
]


class RunnableConfig(TypedDict, total=False):
    """- `run_name`: the name of this run (not of nested ones)
    - `tags`, `metadata`, `callbacks`, `configurable`: inherited by nested runs
    - `max_concurrency`: calls of a batch in flight at once (default 64); inherited by nested
      batches, which count for themselves
    - `recursion_limit`: depth of nested runnables (default 25)
    - `run_id`: the id of this run; of a batch, and of several attempts, that of the first
    """

    run_name: str
    tags: list[str]
    metadata: dict[str, Any]
    callbacks: Any
    configurable: dict[str, Any]
    max_concurrency: int | None
    recursion_limit: int
    run_id: Any


class Inherited(list[Any]):
    """The handlers of a run as nested runs get them in ``config["callbacks"]``, and the run itself.

    So a config that is passed on by hand says where a nested run belongs, even in another thread or
    task, where no context variable says it.
    """

    def __init__(self, handlers: Iterable[Any], run: Any) -> None:
        super().__init__(handlers)
        self.run = run


_KEYS: Final = tuple(RunnableConfig.__annotations__)
DEFAULT_CONCURRENCY: Final = 64


def checked_config(config: Mapping[str, Any] | None) -> RunnableConfig:
    """`config` as a new dict. Raises ConfigurationError for unknown keys and impossible values."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise ConfigurationError(
            f"config is {type(config).__name__} ({config!r}): expected a dict with "
            f"some of {', '.join(_KEYS)}"
        )
    for key in config:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(_KEYS)}"
            raise ConfigurationError(f"config key {key!r} is unknown: {hint}")
        value, (good, expected) = config[key], _CHECKS[key]
        if value is not None and not good(value):
            raise ConfigurationError(f"config {key} is {value!r}: expected {expected}")
    return dict(config)  # type: ignore[return-value]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_tags(value: Any) -> bool:
    return isinstance(value, list | tuple | set) and all(isinstance(tag, str) for tag in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_handlers(value: Any) -> bool:
    check_handlers(() if isinstance(value, Iterator) else value)  # it says more of what is none
    return not isinstance(value, Iterator)  # which could be read only once


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, UUID) or bool(UUID(value))
    except (ValueError, TypeError, AttributeError):
        return False


_CHECKS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "run_name": (lambda value: isinstance(value, str), "a str"),
    "tags": (_is_tags, "a list of strs"),
    "metadata": (_is_mapping, "a dict"),
    "callbacks": (_is_handlers, "a handler, or a list of them"),
    "configurable": (_is_mapping, "a dict"),
    "max_concurrency": (_is_count, "an int of 1 or more"),
    "recursion_limit": (_is_count, "an int of 1 or more"),
    "run_id": (_is_id, "a UUID"),
}


def merge_configs(*configs: Mapping[str, Any] | None) -> RunnableConfig:
    """Configs merged from left to right: tags are joined, metadata and configurable merged by key,
    callbacks joined, anything else replaced."""
    merged: dict[str, Any] = {}
    for config in configs:
        for key, value in checked_config(config).items():
            if value is None:
                continue
            if key == "tags":
                tags = [*merged.get(key, ()), *value]  # type: ignore[misc]
                merged[key] = list(dict.fromkeys(tags))
            elif key in ("metadata", "configurable"):
                merged[key] = {**merged.get(key, {}), **value}  # type: ignore[dict-item]
            elif key == "callbacks":
                merged[key] = _both(merged.get(key, []), value)
            else:
                merged[key] = value
    return merged  # type: ignore[return-value]


def _both(before: list[Any], callbacks: Any) -> list[Any]:
    """Two lists of handlers as one, each handler once; it belongs to the run of the later one."""
    more = callbacks if isinstance(callbacks, Iterable) else (callbacks,)
    # By identity: two handlers that compare equal are two handlers.
    listed = list({id(handler): handler for handler in (*before, *more)}.values())
    run = getattr(callbacks, "run", None) or getattr(before, "run", None)
    return listed if run is None else Inherited(listed, run)


def config_for_each(
    config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, count: int | None
) -> Callable[[int], RunnableConfig]:
    """The config of each input of a batch, by index. A list must have one for each of the `count`
    inputs; it cannot be one where nobody knows how many there will be (None)."""
    given: Any = config
    if isinstance(given, Sequence) and not isinstance(given, str):
        if count is None:
            raise ConfigurationError(
                f"config is a list of {len(given)} for inputs whose number is not known: expected "
                "one dict for all of them"
            )
        if len(given) != count:
            raise ConfigurationError(
                f"config is a list of {len(given)} for {count} inputs: expected one for each"
            )
        return [checked_config(item) for item in given].__getitem__
    single: Any = given
    one = checked_config(single)
    return lambda index: one if index == 0 else for_other_runs(one)


def for_other_runs(config: Mapping[str, Any] | None) -> RunnableConfig:
    """`config` without the `run_id`, which is that of one run."""
    others: RunnableConfig = {**(config or {})}  # type: ignore[typeddict-item]
    others.pop("run_id", None)
    return others
