"""The embedded provider's words: sentences, tokens, and the proper nouns of a prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

__all__ = ["nouns", "pieces", "quote_results", "reply_to", "think_about", "tokens"]

# A token is a word of at most twelve characters with the white space before it.
_TOKEN = re.compile(r"\s*\S{1,12}|\s+")
_PIECE = 5
_CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_][\w'’]*(?:-\w+)*")
_ENDS_SENTENCE = ".!?…\n"
_TOPIC = 60
_QUOTE = 500
_MAX_NOUNS = 8


def tokens(text: str) -> list[str]:
    """Cut text into its tokens; they join to it again."""
    return _TOKEN.findall(text)


def pieces(text: str) -> list[str]:
    """Cut tool arguments into the pieces they are streamed in: five characters each."""
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def nouns(text: str) -> list[str]:
    """The proper nouns of a prompt, in order, each once: "in New York and Rome" has two.

    A capital letter at the start of a sentence proves nothing, so such a word does not count,
    unless it is all there is.
    """
    found: list[str] = []
    end = -1
    for match in _WORD.finditer(text):
        if not _is_name(text, match):
            continue
        name = re.sub(r"['’]s$", "", match.group())
        if found and text[end : match.start()] == " ":
            found[-1] += " " + name
        else:
            found.append(name)
        end = match.end()
    unique = list(dict.fromkeys(found))[:_MAX_NOUNS]
    return unique or ([text.strip(" .!?")] if len(text.split()) == 1 else [])


def _is_name(text: str, match: re.Match[str]) -> bool:
    word = match.group()
    if not word[0].isupper() or word.partition("'")[0].partition("’")[0] == "I":
        return False
    before = text[: match.start()].rstrip(" \t\"'«“„(*#>-—")
    return bool(before) and before[-1] not in _ENDS_SENTENCE


class _Language(msgspec.Struct, frozen=True):
    """The sentences of one language; `{}` stands for the topic, the media or the results."""

    openers: Sequence[str]
    bodies: Sequence[str]
    media: str
    results: str
    thoughts: Sequence[str]


_ENGLISH = _Language(
    openers=(
        'You asked: "{}".',
        'Here is what can be said about "{}".',
        'Let us look at "{}".',
    ),
    bodies=(
        "There are several sides to it, and each of them matters.",
        "The short answer is that it depends on where you look from.",
        "First come the causes, then what follows from them.",
        "A closer look shows that small things add up.",
        "Most people start with a simple example and go on from there.",
    ),
    media="I can see that you sent {}.",
    results="According to the tools: {}",
    thoughts=(
        'The user says: "{}".',
        "I should find out what is really meant.",
        "A short and clear answer will do.",
    ),
)

_RUSSIAN = _Language(
    openers=(
        "Вы спросили: «{}».",
        "Вот что можно сказать о запросе «{}».",
        "Рассмотрим «{}».",
    ),
    bodies=(
        "У этого вопроса несколько сторон, и каждая важна.",
        "Если коротко, всё зависит от точки зрения.",
        "Сначала стоит назвать причины, затем следствия.",
        "При ближайшем рассмотрении малое складывается в большое.",
        "Обычно начинают с простого примера и идут дальше.",
    ),
    media="Я вижу, что вы прислали {}.",
    results="По данным инструментов: {}",
    thoughts=(
        "Пользователь пишет: «{}».",
        "Нужно понять, что имеется в виду.",
        "Подойдёт краткий и ясный ответ.",
    ),
)


def reply_to(text: str, media: dict[str, int]) -> str:
    """Three sentences about `text` in its language, the same ones for the same text."""
    language, choice = _language(text), _number(text)
    body = choice % len(language.bodies)
    sentences = [language.openers[choice % len(language.openers)].format(_topic(text))]
    if media:
        sentences.append(language.media.format(_count(media)))
    sentences.append(language.bodies[body])
    sentences.append(language.bodies[(body + 1) % len(language.bodies)])
    return " ".join(sentences)


def think_about(text: str) -> str:
    """What the model thinks before it answers `text`."""
    first, *rest = _language(text).thoughts
    return " ".join([first.format(_topic(text)), *rest])


def quote_results(text: str, results: Sequence[str]) -> str:
    """A sentence that quotes tool results, in the language of `text`."""
    return _language(text or " ".join(results)).results.format(
        "; ".join(result[:_QUOTE] for result in results)
    )


def _language(text: str) -> _Language:
    return _RUSSIAN if _CYRILLIC.search(text) else _ENGLISH


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "big")


def _topic(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TOPIC else line[: _TOPIC - 1] + "…"


def _count(media: dict[str, int]) -> str:
    """`{"image": 1, "file": 2}` is "1 image, 2 files"; in every language, so tests can look."""
    return ", ".join(f"{n} {what}{'s' if n > 1 else ''}" for what, n in media.items())
