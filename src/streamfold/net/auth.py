"""Credentials into headers, and nowhere else.

An auth scheme is a name in a vendor's row; this table says which header it fills. A key may be a
string, a `Secret`, or a callable (sync or async) that gives a fresh token for each attempt; where
the header depends on the request, it is a `Signer`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from ..errors import ConfigurationError
from ..secret import Secret

__all__ = [
    "SCHEMES",
    "Key",
    "Signer",
    "auth_headers",
    "checked_headers",
    "checked_key",
    "checked_query",
    "revealed",
]


class Signer:
    """Credentials whose header is made for each request."""

    async def sign(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[dict[str, str], list[str]]:
        """The headers to add to the request, and the secrets in them that no text may show."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, object]) -> Signer:
        return self  # copies of a model share its credentials, and what has been found out of them


Key: TypeAlias = Secret | Callable[[], str | Awaitable[str]] | Signer

#: scheme -> (header, how the key is written in it)
SCHEMES: Final = {
    "bearer": ("authorization", "Bearer {}"),
    "x-api-key": ("x-api-key", "{}"),
    "api-key": ("api-key", "{}"),
    "x-goog-api-key": ("x-goog-api-key", "{}"),
    "sigv4": ("authorization", "Bearer {}"),  # an API key; credentials of AWS are a Signer
}


def checked_key(value: str, name: str) -> Secret:
    """The key as a `Secret`. Raises ConfigurationError, without the value, if a header could not
    carry it: blanks, line ends, control or non-ASCII characters."""
    bad = next((place for place, char in enumerate(value) if not "!" <= char <= "~"), None)
    if not value or bad is not None:
        what = "is empty" if not value else f"has {_describe(value, bad or 0)}"
        raise ConfigurationError(f"{name} {what}: expected visible ASCII characters only")
    return Secret(value)


def checked_headers(given: Mapping[str, Any], name: str) -> dict[str, str | Secret]:
    """Headers under lower-case names; the values of those whose names say that they are secret are
    `Secret`s. Raises ConfigurationError, without the value, for what a header cannot carry: line
    ends, control and non-ASCII characters."""
    headers: dict[str, str | Secret] = {}
    for key, value in given.items():
        if not isinstance(key, str) or not _TOKEN.fullmatch(key):
            raise ConfigurationError(f"{name} has the name {key!r}: expected a header's name")
        text = _as_text(value).strip(" ")
        bad = next((n for n, char in enumerate(text) if not " " <= char <= "~"), None)
        if bad is not None:
            raise ConfigurationError(
                f"{name}[{key!r}] has {_describe(text, bad)}: expected ASCII characters only"
            )
        headers[key.lower()] = Secret(text) if _TELLING.search(key) else text
    return headers


def _as_text(value: Any) -> str:
    if hasattr(value, "get_secret_value"):  # pydantic's SecretStr
        value = value.get_secret_value()
    return value.reveal() if isinstance(value, Secret) else str(value)


def checked_query(given: Mapping[str, Any], name: str) -> dict[str, str]:
    """A query as text. Raises ConfigurationError for a key in it: addresses are logged by all that
    see them."""
    for key in given:
        if _KEY_IN_QUERY.fullmatch(str(key)):
            raise ConfigurationError(
                f"{name} has {key!r}: expected no key in a query, which is logged on the way; "
                "send it as api_key= or as one of default_headers"
            )
    return {str(key): str(value) for key, value in given.items()}


_KEY_IN_QUERY: Final = re.compile(
    r"(api|access|subscription|x-api)?[-_]?key|((access|auth|id)[-_]?)?token|secret|password",
    re.IGNORECASE,
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TELLING: Final = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


def revealed(headers: Mapping[str, str | Secret]) -> tuple[dict[str, str], list[str]]:
    """Headers as they are sent, and the secrets in them that no text may show."""
    if not headers:
        return {}, []
    secrets = [value.reveal() for value in headers.values() if isinstance(value, Secret)]
    return {k: v.reveal() if isinstance(v, Secret) else v for k, v in headers.items()}, secrets


def _describe(value: str, place: int) -> str:
    char = value[place]
    kinds = {" ": "a blank", "\n": "a line end", "\r": "a line end", "\t": "a tab"}
    other = (
        "a control character" if char < " " or char == "\x7f" else "a character that is not ASCII"
    )
    kind = kinds.get(char, other)
    where = "at its end" if place == len(value) - 1 else f"at position {place}"
    return f"{kind} {where}"


async def auth_headers(scheme: str | None, key: Key | None) -> tuple[dict[str, str], list[str]]:
    """The headers for one attempt, and the secrets in them that no text may show."""
    if scheme is None or key is None or isinstance(key, Signer):
        return {}, []
    if isinstance(key, Secret):
        value = key.reveal()
    else:
        made = key()
        value = await made if inspect.isawaitable(made) else made
        if not isinstance(value, str):
            raise ConfigurationError(
                f"the api_key callable returned {type(value).__name__}: expected a str"
            )
        value = checked_key(value, "the token from the api_key callable").reveal()
    header, form = SCHEMES[scheme]
    return {header: form.format(value)}, [value]
