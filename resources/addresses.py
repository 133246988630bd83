"""Where a secret may be sent: over TLS, or unencrypted to this machine. Imports no HTTP client."""

import ipaddress
import re
from dataclasses import dataclass

# Strictly RFC 3986, so that no client can read it as another address. Non-ASCII names must be given as xn--….
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:(?P<userinfo>[^/?#\\]*)@)?"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)"
    r"(?P<rest>[?#].*)?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class _Address:
    """The parts of a URL. `rest` is the query and fragment."""

    is_encrypted: bool
    userinfo: str
    host: str
    rest: str
    text: str

    @classmethod
    def parse(cls, text: str) -> "_Address":
        """Raises ValueError if `text` is not an address."""
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"] or 0) > 65_535:
            raise ValueError("not an address")
        host = found["host"].lower()
        if host.startswith("["):
            try:
                ipaddress.IPv6Address(host[1:-1])
            except ValueError:
                raise ValueError("not an address") from None
        scheme, port = found["scheme"].lower(), f":{found['port']}" if found["port"] else ""
        plain = f"{scheme}://{host}{port}{found['path']}"
        return cls(scheme == "https", found["userinfo"] or "", host.strip("[]"), found["rest"] or "", plain)

    @property
    def is_safe_for_secrets(self) -> bool:
        return self.is_encrypted or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether this host can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_url(url: str) -> str:
    """`url` without trailing slashes if the key may be sent there. Raises ValueError with the reason."""
    address = _Address.parse(url)
    if address.userinfo or address.rest:
        raise ValueError("user, password, query and fragment do not belong in it")
    if not address.is_safe_for_secrets:
        raise ValueError("the key would travel unencrypted")
    return address.text.rstrip("/")


def check_webhook(url: str) -> str:
    """`url` without surrounding whitespace if messages may be sent there. Raises ValueError, which never quotes it."""
    address = _Address.parse(url.strip())
    if address.userinfo:
        raise ValueError("user and password do not belong in it")
    if not address.is_safe_for_secrets:
        raise ValueError("messages would travel unencrypted")
    return url.strip()
