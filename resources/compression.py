"""Response bodies that something on the way compressed, although no compression was asked for."""

import zlib

_GZIP_OR_ZLIB, _RAW = 47, -15  # values of zlib's wbits


class CannotDecompress(Exception):
    """A body can't be decompressed. The message is part of a sentence. `is_unknown`: no retry would change that."""

    def __init__(self, message: str, *, is_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_unknown = is_unknown


def decompressed(body: bytes, content_encoding: str, most: int) -> bytes:
    """`body` without the encodings of the header `Content-Encoding`; more than `most` bytes if it is longer than that.

    No step takes more memory than that, whatever the body claims. Raises CannotDecompress.
    """
    codings = [coding.strip().lower() for coding in content_encoding.split(",")]
    for coding in reversed([coding for coding in codings if coding not in ("", "identity")]):
        if coding in ("gzip", "x-gzip"):
            body = _inflated(body, coding, most, _GZIP_OR_ZLIB)
        elif coding == "deflate":
            try:
                body = _inflated(body, coding, most, _GZIP_OR_ZLIB)
            except CannotDecompress:
                body = _inflated(body, coding, most, _RAW)  # what some servers mean by deflate
        else:
            name = coding if coding.isalnum() and len(coding) < 20 else "an unknown method"
            raise CannotDecompress(f"compressed with {name}, although no compression was asked for", is_unknown=True)
    return body


def _inflated(body: bytes, coding: str, most: int, wbits: int) -> bytes:
    whole = b""
    while body:  # gzip may have several members, one after the other
        inflater = zlib.decompressobj(wbits)
        try:
            whole += inflater.decompress(body, most + 1 - len(whole))
        except zlib.error:
            raise CannotDecompress(f"a body that is not {coding}, although its header says so") from None
        if len(whole) > most:
            return whole
        if not inflater.eof:
            raise CannotDecompress(f"a {coding} body that is cut off")
        body = inflater.unused_data
    return whole
