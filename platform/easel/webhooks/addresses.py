"""Where webhooks may be sent: to public addresses, as they are when the connection is made.

A name is resolved once, every address that it has is checked, and the connection goes to one that was checked: a name
that means another address a moment later, or one of ours, reaches nothing inside (server-side request forgery).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from easel.webhooks.errors import WebhookUrlInvalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Prefixes under which IPv6 carries IPv4 addresses in its last 32 bits (RFC 6052, RFC 8215).
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class AddressRefused(httpcore.ConnectError):
    """A name that is, also, an address that no webhook may reach."""


def is_public(address: Address) -> bool:
    """Whether an address is of the internet at large, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if any(address in network for network in _NAT64):
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return is_public(carried)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast


def is_allowed(address: Address, allowed: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in allowed)


def url_check(url: str, *, allowed: Iterable[Network]) -> str:
    """A URL that may be called, as far as it can be told before its name is looked up. Raises `WebhookUrlInvalid`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WebhookUrlInvalid(f"{url!r} is not a URL: {error}", param="url") from error
    schemes = ("https", "http") if allowed else ("https",)
    if parts.scheme not in schemes or not parts.hostname:
        raise WebhookUrlInvalid("the URL begins with https:// and names a host", param="url")
    if parts.username or parts.password or "@" in parts.netloc:
        raise WebhookUrlInvalid("the URL holds no user and no password: the signature says who calls", param="url")
    if parts.fragment:
        raise WebhookUrlInvalid("the URL has no #fragment: it is never sent", param="url")
    if any(letter <= " " or letter == "\x7f" for letter in url) or len(url) > 2000 or port == 0:
        raise WebhookUrlInvalid("the URL has no spaces, a port from 1 on and at most 2,000 characters", param="url")
    try:
        url.encode("ascii")
    except UnicodeEncodeError as error:
        raise WebhookUrlInvalid("write the URL in ASCII: its name as xn--…, its path with %XX", param="url") from error
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return url
    if not is_public(address) and not is_allowed(address, allowed):
        raise WebhookUrlInvalid(f"{address} is not a public address", param="url")
    return url


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a name. Raises `OSError` for one that has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to an address that was checked; TLS and `Host` go on naming the name."""

    def __init__(self, allowed: Iterable[Network]) -> None:
        self._allowed = tuple(allowed)
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address") from error
        for address in addresses:
            if not is_public(address) and not is_allowed(address, self._allowed):
                raise AddressRefused(f"{host} is {address}, which is not a public address")
        return await self._plain.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
