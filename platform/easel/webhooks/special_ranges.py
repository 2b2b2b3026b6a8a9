"""Ranges of addresses that are not the internet: IANA's registries of special-purpose addresses, as data of our own.

`ipaddress.is_global` differs between versions of Python, and follows exceptions that no receiver of webhooks lies in.
So the ranges are listed here whole, those that IANA calls globally reachable too: they are anycast services and relays.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_IPV4 = """
0.0.0.0/8            RFC 791, RFC 1122   this network, and the unspecified address
10.0.0.0/8           RFC 1918            private use
100.64.0.0/10        RFC 6598            carriers' shared addresses; 100.100.100.200 is Alibaba's metadata service
127.0.0.0/8          RFC 1122            loopback
168.63.129.16/32     -                   Azure's services for its virtual machines, at a public address
169.254.0.0/16       RFC 3927            link-local; 169.254.169.254 is the metadata service of most clouds
172.16.0.0/12        RFC 1918            private use
192.0.0.0/24         RFC 6890            protocol assignments; 192.0.0.192 is Oracle's metadata service
192.0.2.0/24         RFC 5737            documentation
192.31.196.0/24      RFC 7535            AS112, anycast
192.52.193.0/24      RFC 7450            relays of multicast
192.88.99.0/24       RFC 7526            relays of 6to4, deprecated
192.168.0.0/16       RFC 1918            private use
192.175.48.0/24      RFC 7534            AS112, anycast
198.18.0.0/15        RFC 2544            benchmarks
198.51.100.0/24      RFC 5737            documentation
203.0.113.0/24       RFC 5737            documentation
224.0.0.0/4          RFC 1112            multicast
240.0.0.0/4          RFC 1112            reserved; its last address is the broadcast (RFC 919)
"""

# Only 2000::/3 is allocated to the internet (RFC 4291). These are the ranges outside of it that have a name, for the
# reader, and the special ones within.
_IPV6 = """
::/96                RFC 4291            the unspecified address, loopback, and IPv4-compatible addresses
::ffff:0:0:0/96      RFC 2765            IPv4-translated
64:ff9b:1::/48       RFC 8215            NAT64 of a local network
100::/64             RFC 6666            discarded
100:0:0:1::/64       RFC 9780            dummy prefix
2001::/23            RFC 2928            protocol assignments, such as Teredo (RFC 4380) and ORCHID (RFC 7343)
2001:db8::/32        RFC 3849            documentation
2620:4f:8000::/48    RFC 7534            AS112, anycast
3ffe::/16            RFC 3701            the former 6bone
3fff::/20            RFC 9637            documentation
5f00::/16            RFC 9602            segment routing
fc00::/7             RFC 4193            unique local; fd00:ec2::254 is Amazon's metadata service
fe80::/10            RFC 4291            link-local
fec0::/10            RFC 3879            site-local, deprecated
ff00::/8             RFC 4291            multicast
"""

SPECIAL_IPV4 = [IPv4Network(line.split()[0]) for line in _IPV4.strip().splitlines()]
SPECIAL_IPV6 = [IPv6Network(line.split()[0]) for line in _IPV6.strip().splitlines()]
_INTERNET = IPv6Network("2000::/3")

# Where an IPv6 address contains an IPv4 address, by how many bits that one stands from the right.
_EMBEDDED = {
    IPv6Network("::ffff:0:0/96"): 0,  # IPv4-mapped (RFC 4291)
    IPv6Network("64:ff9b::/96"): 0,  # NAT64 (RFC 6052)
    IPv6Network("2002::/16"): 80,  # 6to4 (RFC 3056)
}
# The second half of an ISATAP address (RFC 5214), before the IPv4 address in its last 32 bits.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return True for an address of the internet. An IPv4 address in an IPv6 one decides."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in SPECIAL_IPV4)
    number = int(address)
    for network, bits in _EMBEDDED.items():
        if address in network:
            return is_public(IPv4Address(number >> bits & 0xFFFF_FFFF))
    if number >> 32 & 0xFFFF_FFFF in _ISATAP and not is_public(IPv4Address(number & 0xFFFF_FFFF)):
        return False
    return address in _INTERNET and not any(address in network for network in SPECIAL_IPV6)
