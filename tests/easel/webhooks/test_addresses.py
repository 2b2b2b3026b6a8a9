"""No webhook reaches anything inside: not by address, not by name, not by a name that changes its mind."""

import asyncio
import ipaddress
import re
from pathlib import Path

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.webhooks import addresses
from easel.webhooks.addresses import AddressRefused, CheckedBackend, url_check
from easel.webhooks.errors import WebhookUrlInvalid
from easel.webhooks.special_ranges import SPECIAL_IPV4, SPECIAL_IPV6, is_public
from tests.easel.webhooks.conftest import LOOPBACK

INSIDE = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "::10.0.0.1",
    "::7f00:1",
    "fec0::1",
    "5f00::1",
    "3fff::1",
    "2001:db8::1",
    "168.63.129.16",
    "192.0.0.192",  # Oracle's metadata
    "192.0.0.9",  # global by IANA, and so by some versions of Python
    "100.100.100.200",  # Alibaba's metadata
    "192.88.99.1",
    "198.19.255.255",
    "240.0.0.1",
    "::ffff:192.0.0.192",
    "::ffff:0:7f00:1",  # IPv4-translated
    "64:ff9b::c000:c0",  # 192.0.0.192
    "2002:c0a8:101::1",  # 192.168.1.1
    "2001:4860::5efe:10.0.0.1",  # ISATAP
    "2001:4860::200:5efe:169.254.169.254",
    "2001:1::1",
    "2001:20::1",
    "2620:4f:8000::1",
    "3ffe::1",
    "4000::1",
    "fe80::1%eth0",
]


@pytest.mark.parametrize("address", INSIDE)
def test_an_internal_address_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *["8.8.8.8", "1.1.1.1", "192.0.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "223.255.255.255"],
        *["2606:4700:4700::1111", "2a00:1450::1", "2001:4860::5efe:8.8.8.8"],
        *["64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"],
    ],
)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_the_first_and_the_last_address_of_each_special_range_are_not_public():
    """Ranges of the same table as the wall's: the test above has its addresses from the registries."""
    assert len(SPECIAL_IPV4) == 19
    assert len(SPECIAL_IPV6) == 15
    assert not [net for net in (*SPECIAL_IPV4, *SPECIAL_IPV6) if is_public(net[0]) or is_public(net[-1])]


@given(st.ip_addresses(v=4))
def test_an_embedded_ipv4_address_is_checked(address):
    wrapped = [ipaddress.IPv6Address(prefix + int(address)) for prefix in (0xFFFF << 32, 0x64FF9B << 96)]
    wrapped.append(ipaddress.IPv6Address((0x2002 << 112) + (int(address) << 80) + 1))
    assert [is_public(one) for one in wrapped] == [is_public(address)] * 3


def connect(host, allowed=()):
    return asyncio.run(CheckedBackend(allowed).connect_tcp(host, 1, timeout=0.2))


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_that_resolves_to_an_internal_address_is_refused(monkeypatch, address):
    async def resolve(_host, _port):
        return [ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address(address)]

    monkeypatch.setattr(addresses, "resolve", resolve)
    with pytest.raises(AddressRefused):
        connect("friendly.example")


def test_the_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked(monkeypatch):
    asked, connected = [], []

    async def resolve(host, _port):
        asked.append(host)
        return [ipaddress.ip_address("8.8.8.8")]

    async def connect_tcp(_self, host, *_, **__):
        connected.append(host)
        raise httpcore.ConnectError("far away")

    monkeypatch.setattr(addresses, "resolve", resolve)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    with pytest.raises(httpcore.ConnectError, match="far away"):
        connect("friendly.example")
    assert (asked, connected) == (["friendly.example"], ["8.8.8.8"])


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "127.1"])
def test_this_machine_is_refused_however_it_is_written(host):
    with pytest.raises(httpcore.ConnectError):
        connect(host)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example/x",
        "ftp://hooks.example/x",
        "http://hooks.example/x",
        "https://",
        "https://user:pass@hooks.example/",
        "https://hooks.example/#there",
        "https://hooks.example:99999/",
        "https://hooks.example:0/",
        "https://hooks.example/a b",
        "https://hooks.example/\n",
        "https://hooks.example/é",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://" + "x" * 2000,
        "https://" + "a" * 64 + ".example/",
        "https://e..example/",
        "https://.example/",
        "https://ex%61mple.example/",
        "https://ex ample/",
    ],
)
def test_an_unusable_url_is_refused(url):
    with pytest.raises(WebhookUrlInvalid):
        url_check(url, allowed=())


@pytest.mark.parametrize("url", ["https://hooks.example/x?y=1", "https://hooks.example:8443/", "https://8.8.8.8/x"])
def test_a_usable_url_is_stored_unchanged(url):
    assert url_check(url, allowed=()) == url


@pytest.mark.parametrize("url", ["https://localhost:9/", "https://a_b.example/", "https://xn--e1afmkfd.example./"])
def test_any_name_that_dns_answers_for_is_taken(url):
    assert url_check(url, allowed=()) == url


def test_without_tls_only_allowed_networks_are_reached(monkeypatch):
    async def resolve(_host, _port):
        return [ipaddress.ip_address("8.8.8.8")]

    monkeypatch.setattr(addresses, "resolve", resolve)
    with pytest.raises(AddressRefused, match="write https://"):
        asyncio.run(CheckedBackend(LOOPBACK, plain=True).connect_tcp("friendly.example", 1, timeout=0.2))


def test_where_one_address_does_not_answer_the_next_is_tried(monkeypatch):
    tried = []

    async def resolve(_host, _port):
        return [ipaddress.ip_address("2606:4700:4700::1111"), ipaddress.ip_address("8.8.8.8")]

    async def connect_tcp(_self, host, *_, **__):
        tried.append(host)
        raise httpcore.ConnectError("far away")

    monkeypatch.setattr(addresses, "resolve", resolve)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    with pytest.raises(httpcore.ConnectError):
        connect("friendly.example")
    assert tried == ["2606:4700:4700::1111", "8.8.8.8"]


def test_an_installation_may_allow_networks_of_its_own():
    assert url_check("http://127.0.0.1:9/x", allowed=LOOPBACK)
    with pytest.raises(WebhookUrlInvalid):
        url_check("http://10.0.0.1/x", allowed=LOOPBACK)


def test_no_other_module_of_the_control_plane_calls_addresses_that_a_tenant_chose():
    """A module that begins to call out belongs behind `CheckedBackend`, or on this list with its reason."""
    calls_out = re.compile(
        r"^\s*(?:import|from) (?:httpx|httpcore|urllib\.request|http\.client|requests|aiohttp)\b", re.M
    )
    root = Path(addresses.__file__).parents[3]
    files = [file for room in ("platform/easel", "core", "tenants", "billing") for file in (root / room).rglob("*.py")]
    assert {str(file.relative_to(root)) for file in files if calls_out.search(file.read_text())} == {
        "platform/easel/jobs/moderation.py",  # at the operator's address
        "platform/easel/webhooks/addresses.py",
        "platform/easel/webhooks/delivery.py",
    }
