"""The address that the service listens on, as a socket and in words."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from edge_fer.errors import InputError

_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """Take an address; nobody is answered yet.

    Args:
        host: name or address of this machine.
        port: 0: a free one.

    Raises:
        InputError: the address is unknown, of another machine, taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InputError(
            f"--host {host}: expected an address or a name of this machine, such as 127.0.0.1 or 0.0.0.0"
        ) from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(_fault(host, port, error)) from None
    return listener


def url(listener: socket.socket) -> str:
    """Return the address that a socket really has, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reach(listener: socket.socket) -> str:
    """Say in words who can reach a socket."""
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    if address.is_loopback:
        return "only this machine can reach it"
    if address.is_unspecified:
        return "every machine that can reach this one by any of its addresses can reach it"
    return "other machines can reach it"


def _fault(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken: give another --port, or 0 for a free one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: expected an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} of {host} is not allowed to this user: give a --port from 1024 on"
    return f"{host}, port {port}: cannot listen there: {error.strerror or error}; give another --host"
