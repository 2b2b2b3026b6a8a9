"""Restricts webhooks to public addresses, against server-side request forgery.

A host name is resolved once per connection, all its addresses are checked, and the connection goes to a checked
address. So a name that resolves to an internal address, even only for a moment, reaches nothing internal.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpcore

from easel.webhooks.errors import WebhookUrlInvalid
from easel.webhooks.special_ranges import is_public

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# A host name that DNS can resolve.
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?")
# Name lookups wait for foreign name servers, so they have threads of their own and delay nothing else.
_lookups = ThreadPoolExecutor(32, thread_name_prefix="webhook-dns")


class AddressRefused(httpcore.ConnectError):
    """The host name resolves, among others, to an address that webhooks may not reach."""


def is_allowed(address: Address, allowed: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in allowed)


def url_check(url: str, *, allowed: Iterable[Network]) -> str:
    """Check what can be checked of a URL without a name lookup, and return it. Raises `WebhookUrlInvalid`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WebhookUrlInvalid(f"{url!r} is not a URL: {error}", param="url") from error
    schemes = ("https", "http") if allowed else ("https",)
    if parts.scheme not in schemes or not parts.hostname:
        raise WebhookUrlInvalid("the URL must begin with https:// and name a host", param="url")
    if "@" in parts.netloc:
        raise WebhookUrlInvalid("the URL must have no user or password: receivers verify the signature", param="url")
    if parts.fragment:
        raise WebhookUrlInvalid("the URL must not have a #fragment, which is never sent", param="url")
    if any(letter <= " " or letter == "\x7f" for letter in url) or len(url) > 2000 or port == 0:
        raise WebhookUrlInvalid("the URL must have no spaces, a port above 0 and at most 2,000 characters", param="url")
    if not url.isascii():
        raise WebhookUrlInvalid("write the URL in ASCII: the host as xn--…, the path with %XX", param="url")
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        if not _HOST.fullmatch(parts.hostname):
            raise WebhookUrlInvalid(f"{parts.hostname!r} is no host name", param="url") from None
        return url
    if not is_public(address) and not is_allowed(address, allowed):
        raise WebhookUrlInvalid(f"{address} is not a public address", param="url")
    return url


async def resolve(host: str, port: int) -> list[Address]:
    """Look up the addresses of a host name. Raises `OSError` if it has none."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_lookups, look_up)
    return [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only; TLS and the `Host` header use the host name.

    With `plain`, for HTTP without TLS, only the allowed networks can be reached.
    """

    def __init__(self, allowed: Iterable[Network], *, plain: bool = False) -> None:
        self._allowed, self._plain = tuple(allowed), plain
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address") from error
        for address in addresses:
            if not is_allowed(address, self._allowed) and (self._plain or not is_public(address)):
                reason = "needs TLS: write https://" if self._plain else "is not a public address"
                raise AddressRefused(f"{host} resolves to {address}, which {reason}")
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._backend.connect_tcp(str(address), port, *args, **options)
        return await self._backend.connect_tcp(str(addresses[-1]), port, *args, **options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
