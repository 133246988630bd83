"""Which certificate authorities are trusted, from the environment variables that curl and pip read."""

import os
import ssl
from pathlib import Path

import certifi

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class AuthoritiesRefused(ValueError):
    """A variable about certificate authorities has a value that can't be used. The message names it."""


def tls_context(url: str) -> ssl.SSLContext:
    """TLS as a client of this address: certificates and host names are verified.

    Trusts the authorities of the first of VARIABLES that is set and no others; otherwise the machine's, to which a
    company may have added its own, and those that certifi brings for a machine without any. For plain HTTP, which has
    no certificates, none of these are read: it trusts nobody. Raises AuthoritiesRefused.
    """
    if url.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for variable in VARIABLES:
        if value := os.environ.get(variable, "").strip():
            return _trusting(variable, Path(value))
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _trusting(variable: str, path: Path) -> ssl.SSLContext:
    expected = "It must be the path of a PEM file with certificates, or of a directory as openssl rehash makes it."
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise AuthoritiesRefused(f"{variable}={path} is refused: it holds no certificate. {expected}") from None
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise AuthoritiesRefused(f"{variable}={path} is refused: {why}. {expected}") from None
    return context
