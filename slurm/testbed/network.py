"""Ports that two clusters begun at the same instant never share, and how Slurm must bind on this machine."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOPBACK = "127.0.0.1"
FIRST_PORT = 10_000


@contextmanager
def reserved_ports(number: int) -> Iterator[list[socket.socket]]:
    """Sockets bound to that many free ports; no other cluster takes a port as long as any process holds its socket."""
    # Ports from which the kernel serves clients could be taken by one between two lives of a daemon.
    first_client_port = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(FIRST_PORT, max(first_client_port, FIRST_PORT + 5000))
    sockets: list[socket.socket] = []
    try:
        for port in random.sample(candidates, len(candidates)):
            if len(sockets) == number:
                break
            if (reserved := _reserve(port)) is not None:
                sockets.append(reserved)
        yield sockets
    finally:
        for reserved in sockets:
            reserved.close()


def _reserve(port: int) -> socket.socket | None:
    reserved = socket.socket()
    try:
        reserved.bind((LOOPBACK, port))
    except OSError:
        reserved.close()
        return None
    # Set after binding: the bind above was exclusive, and from here on a daemon, which binds with SO_REUSEADDR, may
    # share the port with this socket, while the exclusive bind of another cluster's start still fails.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return reserved


def host() -> str:
    return socket.gethostname().split(".")[0]


def communication_parameters() -> str:
    """The value of CommunicationParameters that this machine needs; empty for Slurm's default."""
    parameters = []
    try:
        flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        socket.getaddrinfo(None, 1, socket.AF_INET, socket.SOCK_STREAM, 0, flags)
    except OSError:
        parameters.append("EnableIPv6")  # without an IPv4 address but loopback, Slurm's own look-ups find nothing
    try:
        if socket.gethostbyname(host()).startswith("127."):
            # Not elsewhere: the daemons would bind to the address of the host's name and be looked for on loopback.
            parameters += ["NoCtldInAddrAny", "NoInAddrAny"]
    except OSError:
        pass  # a name that does not resolve: Slurm's default serves it
    return ",".join(parameters)


def listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0


def listens_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
