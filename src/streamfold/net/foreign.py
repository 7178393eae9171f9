"""What other HTTP clients raise, as the exception of httpx that means the same.

A caller's own client may be httpx, something with its interface (httpx2), or either over the
transport of another library (aiohttp), which tells some failures apart better than the exception
that comes of them. None of them is imported here: classes are known by their names.
"""

from __future__ import annotations

from typing import Final

import httpx

__all__ = ["as_httpx"]

_HTTPX: Final[dict[str, type[Exception]]] = {
    kind.__name__: kind
    for kind in (
        *(httpx.ConnectTimeout, httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout),
        *(httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.CloseError),
        *(httpx.LocalProtocolError, httpx.RemoteProtocolError, httpx.ProxyError),
        *(httpx.UnsupportedProtocol, httpx.DecodingError, httpx.TooManyRedirects),
        *(httpx.TimeoutException, httpx.NetworkError, httpx.TransportError, httpx.InvalidURL),
    )
}

_AIOHTTP: Final[dict[str, type[Exception]]] = {
    "ClientProxyConnectionError": httpx.ProxyError,
    "ClientHttpProxyError": httpx.ProxyError,
    "ClientConnectorError": httpx.ConnectError,
    "ConnectionTimeoutError": httpx.ConnectTimeout,
    "ServerTimeoutError": httpx.ReadTimeout,
    "ServerDisconnectedError": httpx.RemoteProtocolError,
    "ClientPayloadError": httpx.RemoteProtocolError,
    "ClientResponseError": httpx.RemoteProtocolError,
    "ClientConnectionError": httpx.ReadError,
    "InvalidUrlClientError": httpx.InvalidURL,
    "NonHttpUrlClientError": httpx.UnsupportedProtocol,
}


def as_httpx(error: Exception) -> Exception | None:
    """An exception of httpx that says what `error` says; None if it is of no HTTP client."""
    for cause, known in ((error.__cause__, _AIOHTTP), (error, _AIOHTTP), (error, _HTTPX)):
        for kind in type(cause).__mro__:
            if kind.__name__ in known:
                return known[kind.__name__](_text(cause))
    return None


def _text(error: BaseException | None) -> str:
    """What it says, without the URL, in which there may be a key: some of aiohttp quote it."""
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    if status and message:
        return " ".join(f"{status} {message}".split())
    cause = error.__cause__ if isinstance(error, OSError) else None
    return str(cause or error)
