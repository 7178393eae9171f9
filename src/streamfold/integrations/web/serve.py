"""Running the gateway: a uvicorn server, on this machine alone unless told otherwise."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from ...errors import ConfigurationError
from .gateway import Models, gateway

__all__ = ["serve"]

#: The names that lead to this machine from this machine.
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
#: Seconds for answers under way when the server is stopped.
_LAST_WORDS: Final = 3


def serve(
    models: Models,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
) -> None:
    """Serve the gateway until it is interrupted. It says where it is on stdout.

    `models` and `key` as in `gateway`; `port` 0: any that is free. Raises ConfigurationError for an
    address that is taken or is none, and for one that others can reach without a `key`: it would
    spend the money behind the provider's key for everybody.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigurationError("serve needs uvicorn: pip install 'streamfold[web]'") from error
    if not key and not _is_local(host):
        raise ConfigurationError(
            f"host {host!r} can be reached from other machines: give a key that clients must send"
        )
    hosts = _LOCAL | {host} if _is_local(host) else None
    app = gateway(models, key=key or None, hosts=hosts)
    with _listening(host, port) as listener:
        at = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        print(f"Serving {', '.join(models)} at http://{shown}:{at}/v1 (Ctrl-C stops)", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=_LAST_WORDS,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _is_local(host: str) -> bool:
    try:
        return host in _LOCAL or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"port is {port}: expected a number from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}, port {port}: {error}") from error
