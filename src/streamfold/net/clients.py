"""HTTP clients: one per event loop, transport and proxy, shared by all models, on one TLS context.

Connections belong to the loop that opened them and never leave it: the clients are kept in a
`RunVar`, which each run of an event loop has for itself. They close with the loop, or when the
last model that used them is closed; a connection to a host closes with the last model that used the
host.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import weakref
from collections.abc import AsyncGenerator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import anyio.to_thread
from anyio.lowlevel import RunVar

from ..errors import ConfigurationError

if TYPE_CHECKING:  # loaded when the first connection is made: models are made without
    import ssl

    import httpx

    from .aiohttp_transport import AiohttpTransport
    from .pool import PoolTransport

    _Transport = PoolTransport | AiohttpTransport

__all__ = ["Connections"]

_tls: ssl.SSLContext | None = None
_tls_lock = threading.Lock()


def tls_context() -> ssl.SSLContext:
    """The one TLS context. Reading the certificates takes some 10 ms: do it off the loop."""
    global _tls
    with _tls_lock:
        if _tls is None:
            import httpx

            _tls = httpx.create_ssl_context()
        return _tls


class _Shared:
    """A client of one loop, and the models that use it, each with its hosts (`https://host:port`).

    It is among the loop's `clients` until it closes."""

    def __init__(self, transport: _Transport, clients: _Clients, key: _Key) -> None:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx

        self._transport = transport
        self.client = httpx.AsyncClient(
            transport=transport,
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none is kept
        )
        self.users: weakref.WeakKeyDictionary[Connections, set[str]] = weakref.WeakKeyDictionary()
        self.closer = _closing(self.client, clients, key)
        clients[key] = self

    def add(self, user: Connections, host: str) -> None:
        hosts = self.users.get(user)
        if hosts is None:
            hosts = self.users[user] = set()
        hosts.add(host)

    async def leave(self, user: Connections) -> None:
        """Close what nobody uses any more: the connections to some hosts, or the client."""
        hosts = self.users.pop(user, set())
        if self.users:
            await self._transport.forget(hosts.difference(*self.users.values()))
        else:
            await self.closer.aclose()


_Key = tuple[str, bool, str | None]
_Clients = dict[_Key, _Shared]


async def _closing(
    client: httpx.AsyncClient, clients: _Clients, key: _Key
) -> AsyncGenerator[None, None]:
    """Suspended until the loop shuts down its async generators; then the client is closed.

    This is the one hook that asyncio and trio both offer for "when this loop ends". The generator
    refers to its loop, whose variables would keep both for ever: so the client leaves them here.
    """
    try:
        yield
    finally:
        clients.pop(key, None)
        await client.aclose()


_clients: RunVar[_Clients] = RunVar("streamfold_clients")


class Connections:
    """What a model holds: where it connects through, or the client its user gave.

    `proxy` is a URL; None reads the usual environment variables (HTTPS_PROXY, NO_PROXY, ...).
    `transport` is "auto", which is our own (`pool`), or "aiohttp" (`aiohttp_transport`). Raises
    ConfigurationError for another one, and for one whose package is not installed.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        http_client: object | None = None,
        transport: str | None = None,
    ) -> None:
        self._proxy = proxy
        self.own_client = http_client
        self._transport = _checked_transport(transport, http_client)
        self._proxies: dict[str, str | None] = {}  # by host: the environment is read once

    async def client(self, url: str) -> httpx.AsyncClient:
        """The client of the running loop for requests to `url`."""
        if self.own_client is not None:
            return self.own_client  # type: ignore[return-value]
        host = "/".join(url.split("/", 3)[:3])
        proxy = self._proxy or self._proxy_of(host)
        clients = _clients.get(None)
        if clients is None:
            clients = {}
            _clients.set(clients)
        secure = url.startswith("https:")
        if secure and _tls is None:
            await anyio.to_thread.run_sync(tls_context)
        if self._transport == "aiohttp":
            await _load_aiohttp()
        # Plain http apart from the rest, for it needs no TLS context.
        key = (self._transport, secure, proxy)
        shared = clients.get(key)
        if shared is None:
            shared = _Shared(_transport(self._transport, proxy), clients, key)
            await anext(shared.closer)
        shared.add(self, host)
        return shared.client

    def _proxy_of(self, host: str) -> str | None:
        if host not in self._proxies:
            self._proxies[host] = proxy_from_environment(host)
        return self._proxies[host]

    async def aclose(self) -> None:
        """Close what the running loop holds for this model, unless another model still uses it."""
        clients = _clients.get(None) or {}
        for shared in list(clients.values()):
            await shared.leave(self)


#: Transport: the module that has it, and its class.
_TRANSPORTS: Final = {
    "auto": (".pool", "PoolTransport"),
    "aiohttp": (".aiohttp_transport", "AiohttpTransport"),
}


def _checked_transport(name: str | None, http_client: object | None) -> str:
    if name is None or name == "auto":
        return "auto"
    if name not in _TRANSPORTS:
        known = " or ".join(map(repr, _TRANSPORTS))
        raise ConfigurationError(f"transport is {name!r}: expected {known}")
    if http_client is not None:
        raise ConfigurationError("transport and http_client both say how to connect: give one")
    if name == "aiohttp" and find_spec("aiohttp") is None:
        raise ConfigurationError(
            "transport='aiohttp' needs aiohttp: pip install 'streamfold[aiohttp]'"
        )
    return name


async def _load_aiohttp() -> None:
    """Loading takes some 0.2 s: off the loop. Raises ConfigurationError where it cannot run."""
    from .streams import is_asyncio

    if not is_asyncio():
        raise ConfigurationError(
            "transport='aiohttp' runs on asyncio only: on trio, leave transport as it is"
        )
    if f"{__package__}.aiohttp_transport" not in sys.modules:
        await anyio.to_thread.run_sync(import_module, ".aiohttp_transport", __package__)


def _transport(name: str, proxy: str | None) -> _Transport:
    import httpx

    module, kind = _TRANSPORTS[name]
    make: type[_Transport] = getattr(import_module(module, __package__), kind)
    try:
        return make(ssl_context=_tls, proxy=proxy)
    except (ValueError, RuntimeError, httpx.InvalidURL) as error:
        # Of an address that is none, or of SOCKS without its package; it may quote a password.
        raise ConfigurationError(f"the proxy cannot be used: {_without_user(str(error))}") from None


def _without_user(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", text)


_PROXY_VARIABLES: Final = {
    scheme: (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    for scheme in ("http", "https")
}


def proxy_from_environment(url: str) -> str | None:
    """The proxy that the environment names for `url`, as curl and the standard library read it."""
    parts = urlsplit(url)
    names = _PROXY_VARIABLES.get(parts.scheme, ())
    if not any(name in os.environ for name in names):
        return None
    from urllib.request import getproxies, proxy_bypass

    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
