"""Which proxy to use for a server, from the environment variables that curl and pip read."""

import base64
import ipaddress
import os
import urllib.request

import httpx

_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_SCHEMES = ("http", "https")


class ProxyRefused(ValueError):
    """A proxy variable has a value that can't be used. The message names it, without its password."""


def proxy_for(url: str) -> httpx.Proxy | None:
    """The environment's proxy for https. Plain http is only used for loopback, so never through a proxy.

    Without a scheme, it is taken for an http:// one, as curl and pip do. Raises ProxyRefused.
    """
    chosen = _chosen(url)
    return _proxy(*chosen) if chosen else None


def proxy_address(url: str) -> str | None:
    """The address of the same proxy, with its password, for a client that takes it so. Raises ProxyRefused."""
    chosen = _chosen(url)
    if chosen is None:
        return None
    _proxy(*chosen)
    _, value = chosen
    return value if "://" in value else f"http://{value}"


def _chosen(url: str) -> tuple[str, str] | None:
    """What names the proxy, and its address."""
    parsed = httpx.URL(url)
    if parsed.scheme != "https" or _is_bypassed(parsed.host, parsed.port or 443):
        return None
    for variable in _VARIABLES:
        if value := os.environ.get(variable, "").strip():
            return variable, value
    system = urllib.request.getproxies().get("https")  # elsewhere than on Linux, the system's settings
    return ("The system's proxy", system) if system else None


def _proxy(variable: str, value: str) -> httpx.Proxy:
    expected = "It must be like http://host:port, with user:password@ before the host if it needs them."
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
    except (httpx.InvalidURL, ValueError):
        raise ProxyRefused(f"{variable} is refused: it is not the address of a proxy. {expected}") from None
    if proxy.url.scheme not in _SCHEMES:
        raise ProxyRefused(
            f"{variable} is refused: {proxy.url.scheme}:// proxies are not supported. {expected} If you have only that "
            "one, put a proxy that speaks HTTP in front of it."
        )
    if not proxy.url.host:
        raise ProxyRefused(f"{variable} is refused: it names no host. {expected}")
    if not proxy.auth:
        return proxy
    # As a header, because aiohttp's own way, which the transport would use, is deprecated.
    credentials = base64.b64encode(":".join(proxy.auth).encode()).decode()
    return httpx.Proxy(proxy.url, headers={"Proxy-Authorization": f"Basic {credentials}"})


def _is_bypassed(host: str, port: int) -> bool:
    """Whether NO_PROXY has the host, its domain, its address block or `*`, with or without the port."""
    if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in block for block in _blocks(os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""))


def _blocks(listed: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    blocks = []
    for part in listed.split(","):
        try:
            blocks.append(ipaddress.ip_network(part.strip().strip("[]"), strict=False))
        except ValueError:
            continue  # a name
    return blocks
