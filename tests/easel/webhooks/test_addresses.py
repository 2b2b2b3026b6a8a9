"""No webhook reaches anything inside: not by address, not by name, not by a name that changes its mind."""

import asyncio
import ipaddress

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.webhooks import addresses
from easel.webhooks.addresses import AddressRefused, CheckedBackend, is_public, url_check
from easel.webhooks.errors import WebhookUrlInvalid
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
]


@pytest.mark.parametrize("address", INSIDE)
def test_an_internal_address_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_embedded_ipv4_address_is_checked(address):
    wrapped = [ipaddress.IPv6Address(prefix + int(address)) for prefix in (0xFFFF << 32, 0x64FF9B << 96)]
    assert [is_public(one) for one in wrapped] == [is_public(address)] * 2


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
