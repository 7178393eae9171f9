"""What a vocabulary is: items of a stream in, the `data` of server-sent events out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, runtime_checkable

from ...coercion import nearest, shown
from ...errors import ConfigurationError
from .events import EventsVocabulary
from .failures import Refusal
from .items import Item
from .openai import OpenAIVocabulary
from .vercel import VercelVocabulary

__all__ = ["Vocabulary", "Word", "vocabulary_of"]

Word: TypeAlias = Literal["events", "openai", "vercel"]


@runtime_checkable
class Vocabulary(Protocol):
    """The state of one stream in one vocabulary. `feed` it every item and `close` it at the end, or
    let it `fail`; each returns JSON texts, one for each event. `refuse` is the response where
    nothing has been sent yet. `headers` go with the stream."""

    headers: ClassVar[Mapping[str, str]]

    def feed(self, item: Item) -> list[bytes]: ...
    def close(self) -> list[bytes]: ...
    def fail(self, error: Exception, text: str) -> list[bytes]: ...
    def refuse(self, error: Exception, text: str) -> Refusal: ...


_WORDS: Final[dict[str, Callable[[], Vocabulary]]] = {
    "events": EventsVocabulary,
    "openai": OpenAIVocabulary,
    "vercel": VercelVocabulary,
}


def vocabulary_of(given: Any) -> Vocabulary:
    """A vocabulary by its name, or one that is made already. Raises ConfigurationError."""
    if isinstance(given, str) and given in _WORDS:
        return _WORDS[given]()
    if isinstance(given, Vocabulary):
        return given
    raise ConfigurationError(
        f"vocabulary is {shown(given)}: expected one of {', '.join(map(repr, _WORDS))}, or a "
        f"Vocabulary{nearest(given, _WORDS)}"
    )
