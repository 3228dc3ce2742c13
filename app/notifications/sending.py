"""One HTTP request to an address that an admin typed in: where it may go, and what is kept of the answer.

The request leaves this machine from inside somebody's network, so it must not become a way into that network: names
are resolved here, private addresses are refused, and the connection goes to the very address that was looked at. A
name that resolves otherwise a moment later (DNS rebinding), or a redirect, leads nowhere else.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from app.notifications.errors import BadWebhook

TIMEOUT_S = 10.0  # for all of it: resolving, connecting, sending, and the answer
ANSWER_KEPT = 200  # letters
LONGEST_URL = 2000

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
NAT64 = ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
# All that IANA has given out for the internet. What lies outside is site-local, or leads to an IPv4 address by a
# translator of somebody's own (64:ff9b:1::/48, ::ffff:0:0:0/96, ::/96), and Python 3.11 calls much of it global.
PUBLIC_IPV6 = ip_network("2000::/3")

LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")  # of a host's name; the resolver raises on others (RFC 1035, 2.3.4)
LONGEST_HOST = 253


@dataclass(frozen=True)
class Answer:
    """What a receiver answered. text: the first letters of its body."""

    status: int
    text: str

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class NotSent(Exception):
    """There was no answer; the message says why."""

    code = "not_sent"


def check_url(url: str) -> str:
    """The address of a webhook as it is stored. Raises BadWebhook."""
    url = url.strip()
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError):
        raise BadWebhook("url", "This is no address; write one like https://hooks.example.org/podium.") from None
    if parsed.scheme not in ("http", "https") or not host or " " in url:
        raise BadWebhook("url", "The address must begin with https:// (or http://) and name a host.")
    if not _can_be_looked_up(ascii_host(parsed)):
        raise BadWebhook(
            "url",
            f"{host} is no name of a host: between its dots stand 1 to 63 letters, digits or hyphens,"
            f" at most {LONGEST_HOST} in all.",
        )
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise BadWebhook("url", f"{parsed.port} is no port: they go from 1 to 65535.")
    if parsed.userinfo or parsed.fragment:
        raise BadWebhook("url", "The address must hold no user name, password or #: the signature says who sends.")
    if len(url) > LONGEST_URL:
        raise BadWebhook("url", f"The address is longer than {LONGEST_URL} letters.")
    return url


def ascii_host(url: httpx.URL) -> str:
    """The URL's host as it is looked up: xn--bcher-kva.example for bücher.example."""
    return url.raw_host.decode("ascii")


def _can_be_looked_up(host: str) -> bool:
    if ":" in host:  # an IPv6 address, and httpx has read it
        return "%" not in host  # a zone would name a link of this machine
    labels = host.removesuffix(".").split(".")
    return len(host) <= LONGEST_HOST and all(LABEL.fullmatch(label) for label in labels)


def host_of(url: str) -> str:
    """What may be said of an address to those who must not know it: many receivers keep a secret in the path."""
    return httpx.URL(url).host


def is_allowed(address: Address, networks: Sequence[Network], refused: Sequence[Network] = ()) -> bool:
    """Whether a webhook may reach the address: a public one, or one of the networks that the installation allows.

    refused: public networks of which only what `networks` names may be reached. Nobody but the installation knows the
    prefix of its own NAT64 (RFC 6052, 2.2): an address there looks public, and leads to any IPv4 one.
    """
    inner = _inside(address)
    if _lies_in(inner, networks):
        return True
    if _lies_in(inner, refused) or _lies_in(address, refused):
        return False
    if isinstance(inner, IPv6Address) and inner not in PUBLIC_IPV6:
        return False
    return inner.is_global and not inner.is_multicast


def _lies_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries, if it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


async def post(
    url: str, headers: Mapping[str, str], body: bytes, networks: Sequence[Network], refused: Sequence[Network] = ()
) -> Answer:
    """Send it once. Follows no redirect and uses no proxy. Raises NotSent."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _post(httpx.URL(url), headers, body, networks, refused)
    except TimeoutError:
        raise NotSent(f"no answer within {TIMEOUT_S:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NotSent(_reason(error)) from error


async def _post(
    url: httpx.URL,
    headers: Mapping[str, str],
    body: bytes,
    networks: Sequence[Network],
    refused: Sequence[Network],
) -> Answer:
    addresses = [address for address in await resolve(url) if is_allowed(address, networks, refused)]
    if not addresses:
        raise NotSent(
            f"{url.host} is a private address or one refused here, and PODIUM_WEBHOOK_NETWORKS does not name it;"
            " nothing was sent"
        )
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=tls(), trust_env=False, timeout=TIMEOUT_S, limits=limits) as client:
        for address in addresses:
            request = client.build_request(
                "POST",
                url.copy_with(host=str(address)),
                headers={**headers, "Host": url.netloc.decode(), "Accept-Encoding": "identity"},
                content=body,
                extensions={"sni_hostname": ascii_host(url)},
            )
            try:
                response = await client.send(request, stream=True)
            except httpx.ConnectError:
                if address is addresses[-1]:
                    raise
                continue
            async with aclosing(response):
                return Answer(response.status_code, await _first_letters(response))
    raise AssertionError("the last address either answers or raises")


async def resolve(url: httpx.URL) -> list[Address]:
    """The addresses of the URL's host. Raises OSError."""
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(ascii_host(url), port, proto=6)  # 6: TCP
    return list(dict.fromkeys(ip_address(str(place[4][0]).partition("%")[0]) for place in found))


async def _first_letters(response: httpx.Response) -> str:
    kept = b""
    async for chunk in response.aiter_raw():
        kept += chunk
        if len(kept) >= 4 * ANSWER_KEPT:  # UTF-8 takes four bytes a letter at most
            break
    text = kept.decode(errors="replace")[:ANSWER_KEPT]
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """The machine's own authorities, so that a company's are known too; SSL_CERT_FILE names others."""
    return ssl.create_default_context()


def _reason(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return said[0][:ANSWER_KEPT] if said else f"the connection broke off ({type(error).__name__})"
