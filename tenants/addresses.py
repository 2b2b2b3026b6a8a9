"""The networks from which a key may be used, and the address of who uses it."""

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

NETWORKS_MAX = 50  # of a key
_MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4 addresses as IPv6 writes them, on a socket for both


def network_of(text: str) -> str:
    """Return a network, or an address as a network of its own, as it is stored. Raises `ValueError`.

    A network of IPv4 that is written as IPv6 (`::ffff:10.0.0.0/104`) is IPv4's.
    """
    network = ip_network(text.strip())
    if "%" in str(network):  # its zone is one of this machine, and is not stored
        raise ValueError(f"{network} has a zone")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        network = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - _MAPPED.prefixlen))
    return str(network)


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a server or a proxy names, which may have a port; None if it names none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_within(text: str, networks: Collection[str]) -> bool:
    """Return true if an address lies in one of the networks, or if there are none. What is no address lies in none."""
    if not networks:
        return True
    address = address_of(text)
    return address is not None and any(address in network for network in _parsed(tuple(networks)))


@lru_cache(maxsize=1000)
def _parsed(networks: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, networks))
