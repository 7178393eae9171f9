"""Values as JSON text and back: what a journal keeps of a batch.

Plain data stays as it is. What JSON has no word for is a dict with one key that begins with "$": a
message, a tuple, bytes, an object of the class that the runnable answers with. Nothing in the text
names a class to be made: which one it is, the runnable that reads it says.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_args, get_type_hints

import msgspec

from .messages import BaseMessage, message_from_dict

__all__ = ["Stored", "described", "fingerprint", "returned_class"]


def _as_it_is(value: Any) -> Any:
    return value


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """How a journal keeps what a runnable answers.

    `identity` says what the answers depend on besides the input: with another one, they are
    another batch's. `type` is the class of objects among them. `keep` gives what is written of a
    result, and `restore` makes the result of that.
    """

    identity: dict[str, Any]
    type: Any = None
    keep: Callable[[Any], Any] = _as_it_is
    restore: Callable[[Any], Any] = _as_it_is

    def write(self, result: Any) -> str:
        """`result` as text. Raises TypeError or ValueError if it would not come back equal."""
        kept = self.keep(result)
        text = _text(kept)
        again = _loaded(json.loads(text), self.type)
        if type(again) is not type(kept) or not (again == kept or _looks_same(kept, again, text)):
            raise ValueError("what was written does not read back equal")
        return text

    def read(self, text: str) -> Any:
        """The result that `write` wrote. Raises ValueError for any other text."""
        return self.restore(_loaded(json.loads(text), self.type))


def _looks_same(kept: Any, again: Any, text: str) -> bool:
    """For what is not even equal to itself: NaN, and objects that compare by identity."""
    kind: Any = type(kept)
    by_identity = kind.__eq__ is object.__eq__
    return (by_identity or '"$object"' not in text) and _text(again) == text


def fingerprint(value: Any) -> bytes:
    """16 bytes that stand for `value`. Raises TypeError for what has no content to go by."""
    text = json.dumps(_dumped(value, _content), separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def returned_class(function: Callable[..., Any]) -> Any:
    """The one class with declared fields in what a function says it returns, such as
    ``list[Answer] | None``; None if there is none, or more than one."""
    try:
        found = set(_classes(get_type_hints(function).get("return")))
    except Exception:  # names that can be resolved nowhere, callables that have no annotations
        return None
    return found.pop() if len(found) == 1 else None


def _classes(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        yield from _classes(argument)
    if isinstance(annotation, type) and not issubclass(annotation, BaseMessage):
        declared = dataclasses.is_dataclass(annotation) or issubclass(annotation, msgspec.Struct)
        if declared or hasattr(annotation, "model_validate_json"):
            yield annotation


def described(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as a journal keeps it: numbers, and names that are no secret, can be read; the
    rest is there as fingerprints."""
    return {name: _shown(name, value) for name, value in sorted(identity.items())}


_NAMES: Final = ("runnable", "provider", "model", "method")


def _shown(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float) or name in _NAMES:
        return value
    return {"fingerprint": fingerprint(value).hex()}


# ---- to JSON -------------------------------------------------------------------------------------


def _refused(value: Any) -> Any:
    raise TypeError(
        f"{type(value).__name__} ({value!r:.60}) is neither a message nor plain data nor an object "
        "with declared fields"
    )


def _content(value: Any) -> Any:
    """Of what cannot be read back: its class and its content, to tell it from others."""
    try:
        return {"$other": [type(value).__qualname__, msgspec.to_builtins(value, order="sorted")]}
    except TypeError:
        return _refused(value)


def _text(value: Any) -> str:
    # ASCII, so that half a surrogate pair, too, comes back as it was.
    return json.dumps(_dumped(value, _refused), separators=(",", ":"))


def _dumped(value: Any, other: Callable[[Any], Any]) -> Any:
    kind = type(value)
    if value is None or kind in (str, bool, int, float):
        return value
    if kind is list:
        return [_dumped(item, other) for item in value]
    if kind is tuple:
        return {"$tuple": [_dumped(item, other) for item in value]}
    if kind is dict:
        items = [(key, _dumped(item, other)) for key, item in value.items()]
        if all(type(key) is str and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [[_dumped(key, other), item] for key, item in items]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, BaseMessage):
        return {"$message": _dumped(value.to_dict(), other)}
    if dataclasses.is_dataclass(kind) or isinstance(value, msgspec.Struct) or _is_pydantic(value):
        return {"$object": msgspec.to_builtins(_fields(value), enc_hook=_fields)}
    return other(value)


def _is_pydantic(value: Any) -> bool:
    return hasattr(value, "model_dump") and hasattr(type(value), "model_validate_json")


def _fields(value: Any) -> Any:
    if _is_pydantic(value):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    if dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct):
        return value
    return _refused(value)


# ---- and back ------------------------------------------------------------------------------------


def _loaded(data: Any, type_: Any) -> Any:
    if isinstance(data, list):
        return [_loaded(item, type_) for item in data]
    if not isinstance(data, dict):
        return data
    mark, inner = next(iter(data.items()), ("", None))
    read = _READERS.get(mark)
    if read is not None:
        return read(inner, type_)
    return {key: _loaded(item, type_) for key, item in data.items()}


def _object(data: Any, type_: Any) -> Any:
    if type_ is None:
        raise ValueError("it holds an object, and it is not known of which class")
    if hasattr(type_, "model_validate_json"):
        return type_.model_validate_json(json.dumps(data))
    try:
        return msgspec.convert(data, type_, str_keys=True, dec_hook=_nested)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _nested(type_: Any, data: Any) -> Any:
    if hasattr(type_, "model_validate_json"):
        return type_.model_validate_json(json.dumps(data))
    raise ValueError(f"{type_.__name__} cannot be read")


_READERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "$tuple": lambda inner, type_: tuple(_loaded(inner, type_)),
    "$dict": lambda inner, type_: {_loaded(k, type_): _loaded(v, type_) for k, v in inner},
    "$bytes": lambda inner, type_: base64.b64decode(inner),
    "$message": lambda inner, type_: message_from_dict(_loaded(inner, type_)),
    "$object": _object,
}
