"""Where a webhook may lead to: what a name means is looked up, checked, and connected to as it was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time

#: Seconds that the answer of a look-up counts.
_KEPT = 5.0


class Forbidden(Exception):
    """Raised for a name that leads to this machine, a private network, or somewhere else that is not the internet."""


class Addresses:
    """Looks up one host, again and again.

    Args:
        allow_private: may it lead anywhere?
    """

    def __init__(self, host: str, port: int, allow_private: bool) -> None:
        self._host, self._port, self._allow_private = host, port, allow_private
        self._found: list[str] = []
        self._until = 0.0
        self._next = 0

    async def one(self) -> str:
        """An address to connect to. Raises Forbidden if any of the name's is no public one; OSError if it has none."""
        if time.monotonic() >= self._until:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            addresses = [str(address[0]) for *_, address in found]
            for address in addresses:
                self._check(address)
            self._found, self._until = addresses, time.monotonic() + _KEPT
        return self._found[self._next % len(self._found)]

    def note_failure(self) -> None:
        """The last one can't be connected to: try another, and look again."""
        self._next += 1
        self._until = 0.0

    def _check(self, address: str) -> None:
        if not (self._allow_private or is_public(address)):
            raise Forbidden(f"{self._host} leads to {address}, which is no address on the internet: see allow_private")


def is_public(address: str) -> bool:
    """Is it an address on the internet: not private, loopback, link-local or multicast, nor one that hides such?"""
    parsed: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        hidden = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if hidden is None and parsed in _NAT64:
            hidden = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if hidden is not None:
            return is_public(str(hidden))
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
