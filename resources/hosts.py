"""Which hosts are this machine: only to those may a secret travel unencrypted. By which proxy others are reached."""

import ipaddress
import urllib.request

import httpx


def is_loopback(host: str) -> bool:
    """Whether this host can be nothing but this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_for(url: str) -> httpx.Proxy | None:
    """The environment's proxy for https. Plain http goes to loopback alone, so never to a proxy."""
    parsed = httpx.URL(url)
    proxy = urllib.request.getproxies().get("https")
    if parsed.scheme != "https" or not proxy or urllib.request.proxy_bypass(parsed.host):
        return None
    return httpx.Proxy(proxy)
