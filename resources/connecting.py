"""Why a connection could not be made, where trying again would not help."""

import ssl
from collections.abc import Iterator

import aiohttp


def lasting_reason(error: Exception) -> str:
    """What is wrong and what to do, in sentences, if no further try can succeed; else empty."""
    for cause in _causes(error):
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            cause = cause.certificate_error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate at its address is not accepted ({cause.verify_message}). If your network inspects "
                "encrypted traffic, set SSL_CERT_FILE to the file with the certificate of its authority. Otherwise "
                "check DEVIN_API_URL and this machine's clock."
            )
        if isinstance(cause, aiohttp.ClientHttpProxyError) and cause.status == 407:
            return "the proxy requires a user and password (407): set both in HTTPS_PROXY."
        if isinstance(cause, aiohttp.ClientHttpProxyError) and 400 <= cause.status < 500 and cause.status != 429:
            return (
                f"the proxy refuses to connect to it ({cause.status}). Check HTTPS_PROXY and NO_PROXY, and ask your "
                "network administrator."
            )
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
