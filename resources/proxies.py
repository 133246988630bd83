"""Which proxy to use for a server."""

import urllib.request

import httpx


def proxy_for(url: str) -> httpx.Proxy | None:
    """The environment's proxy for https. Plain http is only used for loopback, so never through a proxy."""
    parsed = httpx.URL(url)
    proxy = urllib.request.getproxies().get("https")
    if parsed.scheme != "https" or not proxy or urllib.request.proxy_bypass(parsed.host):
        return None
    return httpx.Proxy(proxy)
