"""The daemon over TCP, where SUPERVISE_URL names one.

Owns the meaning of that address, and the bearer token. Invariant: a token travels unencrypted to
this very host alone.
"""

import ipaddress
import socket
import ssl
from urllib.parse import urlsplit

from supervisor.client.connection import Connection
from supervisor.client.errors import ClientError, NoDaemon
from supervisor.client.sockets import CONNECT_S

DEFAULT_PORTS = {"http": 80, "https": 443}


def connection_to(url: str, token: str | None) -> Connection:
    """A connection to the daemon at `http://HOST:PORT` or `https://HOST[:PORT]`.

    Raises:
        ClientError: that is no such address, or the token would be sent for everybody to read.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise ClientError(_no_address(url)) from error
    host = parts.hostname
    if not host or not port or parts.path not in {"", "/"} or parts.query:
        raise ClientError(_no_address(url))
    if token is not None and parts.scheme == "http" and not _is_loopback(host):
        raise ClientError(
            f"SUPERVISE_URL {url}: the token would travel unencrypted. Use a tunnel "
            f"(ssh -L {port}:127.0.0.1:{port} {host}) and http://127.0.0.1:{port}, or https"
        )
    context = ssl.create_default_context() if parts.scheme == "https" else None

    def dial() -> socket.socket:
        try:
            plain = socket.create_connection((host, port), CONNECT_S)
            return plain if context is None else context.wrap_socket(plain, server_hostname=host)
        except OSError as error:
            raise NoDaemon(url, str(error.strerror or error)) from error

    name = f"[{host}]" if ":" in host else host
    headers = {"Host": f"{name}:{port}"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return Connection(dial, url, headers)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_address(url: str) -> str:
    return f"SUPERVISE_URL {url} is not an address: write it as http://127.0.0.1:8750"
