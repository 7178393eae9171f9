"""Fetching a file that a message names by URL: only when asked to, and only from public addresses.

A URL in a message may come from anybody, so the fetch must not become a way into the network that
this program runs in. The rules:

- https only, without user and password; nothing is sent but the request: no cookie, no key, no
  header of the caller's. Proxies are not used, for they would choose the address.
- The name is resolved once. Every address that it has must be public: none that is private,
  loopback, link-local, shared, multicast, reserved or a cloud's metadata service, and none that
  leads to such an IPv4 address (mapped, NAT64, 6to4, Teredo). The connection goes to the address
  that was checked, so a second answer of the name server changes nothing.
- Redirects are refused.
- Not compressed, at most `MAX_BYTES`, all of it within `MAX_SECONDS`.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, ClassVar, Final

import anyio
import anyio.to_thread
import httpcore
import httpx
import msgspec

from ..errors import (
    ConfigurationError,
    ConnectError,
    RedirectRefusedError,
    RequestTimeoutError,
    SizeLimitError,
    StreamfoldError,
    StreamInterruptedError,
    TransportError,
)
from .clients import tls_context

__all__ = [
    "MAX_BYTES",
    "MAX_SECONDS",
    "Fetched",
    "Network",
    "fetch",
    "is_public",
    "shown_url",
]

MAX_BYTES: Final = 50 * 1024 * 1024
MAX_SECONDS: Final = 30.0

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"user-agent": "streamfold", "accept": "*/*", "accept-encoding": "identity"}


class Fetched(msgspec.Struct, frozen=True):
    """A file from the web; `mime_type` is what the server calls it, "" if it says nothing."""

    data: bytes
    mime_type: str


# ---- addresses -----------------------------------------------------------------------------------

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Reachable from everywhere, or taken for it by some version of `ipaddress`, and yet not public.
_CLOSED: Final = tuple(
    ipaddress.ip_network(block)
    for block in (
        "100.64.0.0/10",  # shared: carriers, and the metadata service of Alibaba
        "168.63.129.16/32",  # the platform service of Azure
        "192.0.0.0/24",  # protocols, and the metadata service of Oracle
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",  # benchmarks
        "64:ff9b:1::/48",  # NAT64 of a local network
        "2001:db8::/32",  # documentation
        "3fff::/20",
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local, as it was
    )
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_V4_COMPATIBLE: Final = ipaddress.ip_network("::/96")


def is_public(address: str) -> bool:
    """Whether an IP address, as text, belongs to the public internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_global(ip)
    if ip.scope_id is not None:
        return False
    inner = _v4_inside(ip)
    translated = ip.ipv4_mapped is not None or ip in _NAT64
    return all(map(_is_global, inner)) and (translated or _is_global(ip))


def _is_global(ip: Address) -> bool:
    if ip.is_multicast or ip.is_reserved or any(ip in block for block in _CLOSED):
        return False
    return ip.is_global


def _v4_inside(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that traffic for an IPv6 address may end at."""
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64 or ip in _V4_COMPATIBLE:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [address for address in found if address is not None]


# ---- the network ---------------------------------------------------------------------------------


class Network:
    """Name look-up and connections, in one place so that tests can stand in for the internet."""

    schemes: ClassVar[tuple[str, ...]] = ("https",)

    async def resolve(self, host: str, port: int) -> list[str]:
        """All addresses of a host, as text."""
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def connect(self, address: str, port: int) -> httpcore.AsyncNetworkStream:
        """A connection to one address."""
        backend: Any = httpcore.AnyIOBackend()
        stream: httpcore.AsyncNetworkStream = await backend.connect_tcp(address, port)
        return stream

    async def tls(self) -> ssl.SSLContext:
        return await anyio.to_thread.run_sync(tls_context)


class _Checked(httpcore.AsyncNetworkBackend):
    """Opens connections to public addresses only: to the very one that was checked."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def connect_tcp(
        self, host: str, port: int, *args: Any, **kwargs: Any
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._network.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ConnectError(f"the host {host!r} cannot be found: {error}") from None
        if not addresses or not all(map(is_public, addresses)):
            # Which one it is, is not for whoever chose the URL.
            raise _refused(f"the host {host!r} has an address that is not public")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._network.connect(address, port)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as error:
                failure = error
        raise ConnectError(f"no connection to {host!r}: {failure}")

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> Any:
        raise _refused("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def _refused(what: str) -> ConfigurationError:
    return ConfigurationError(f"{what}: media is fetched from public addresses only")


# ---- fetching ------------------------------------------------------------------------------------


async def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    seconds: float = MAX_SECONDS,
    network: Network | None = None,
) -> Fetched:
    """The file at `url`, by the rules above.

    Raises ConfigurationError for a URL that is not to be fetched, RedirectRefusedError where it
    leads elsewhere, SizeLimitError past `max_bytes`, RequestTimeoutError after `seconds`,
    ConnectError where nobody answers, and TransportError for any status but 200.
    """
    network = network or Network()
    failure: StreamfoldError
    try:
        with anyio.fail_after(seconds):
            return await _get(_checked_url(url, network.schemes), max_bytes, network)
    except TimeoutError:
        failure = RequestTimeoutError(
            f"{shown_url(url)} was not fetched within {seconds:g} s", limit="total", seconds=seconds
        )
    except httpcore.ConnectError as error:
        failure = ConnectError(f"no connection for {shown_url(url)}: {error}")
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        failure = StreamInterruptedError(f"{shown_url(url)} broke off: {error}")
    raise failure


def _checked_url(url: str, schemes: tuple[str, ...]) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{shown_url(url)} is not a URL: {error}") from None
    if target.scheme not in schemes or not target.host:
        raise ConfigurationError(
            f"{shown_url(url)} cannot be fetched: expected {' or '.join(schemes)}"
        )
    if target.userinfo:
        raise ConfigurationError(f"{shown_url(url)} has a user or password in it: expected none")
    return target.copy_with(fragment=None)


async def _get(target: httpx.URL, max_bytes: int, network: Network) -> Fetched:
    headers = [(b"host", target.netloc), *((k.encode(), v.encode()) for k, v in _HEADERS.items())]
    request = httpcore.Request(
        "GET",
        httpcore.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        ),
        headers=headers,
    )
    context = await network.tls() if target.scheme == "https" else None
    async with httpcore.AsyncConnectionPool(
        ssl_context=context, max_connections=1, network_backend=_Checked(network)
    ) as pool:
        response = await pool.handle_async_request(request)
        source = aiter(response.stream)  # type: ignore[arg-type]
        try:
            return await _answer(str(target), response, source, max_bytes)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()
                with suppress(Exception):  # httpcore's generators must come to their end
                    while True:
                        await anext(source)


async def _answer(
    url: str, response: httpcore.Response, source: AsyncIterator[bytes], max_bytes: int
) -> Fetched:
    headers = httpx.Headers(response.headers)
    if response.status in _REDIRECTS and "location" in headers:
        raise RedirectRefusedError(
            f"{shown_url(url)} redirects to {shown_url(headers['location'])}: redirects are not "
            "followed, give that URL itself"
        )
    if response.status != 200:
        raise TransportError(
            f"{shown_url(url)} answered with status {response.status}: expected 200"
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise TransportError(f"{shown_url(url)} is compressed, though that was not asked for")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(url, max_bytes)
    body = await _read(url, source, max_bytes)
    return Fetched(body, headers.get("content-type", "").partition(";")[0].strip().lower())


async def _read(url: str, source: AsyncIterator[bytes], max_bytes: int) -> bytes:
    pieces, size = [], 0
    async for piece in source:
        size += len(piece)
        if size > max_bytes:
            raise _too_large(url, max_bytes)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(url: str, max_bytes: int) -> SizeLimitError:
    return SizeLimitError(f"{shown_url(url)} is larger than the {max_bytes} bytes that are fetched")


def shown_url(url: str) -> str:
    """A URL for an error message: without user and query, which may hold keys."""
    head, slashes, rest = str(url).partition("://")
    path = rest.partition("?")[0].partition("#")[0]
    host, slash, tail = path.partition("/")
    shown = f"{head}{slashes}{host.rpartition('@')[2]}{slash}{tail}"
    return repr(shown if len(shown) <= 100 else shown[:99] + "…")
