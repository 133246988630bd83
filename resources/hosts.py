"""Which hosts are this machine: only to those may a secret travel unencrypted."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether this host can be nothing but this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
