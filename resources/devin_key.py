"""The API key: where it comes from, which version it is for, where it may be sent, and how to keep it out of text."""

import hashlib
import os
import re
from typing import Literal

from resources.addresses import check_url
from resources.devin_errors import Unauthorized
from resources.devin_versions import VersionName

KEY_VARIABLE = "DEVIN_API_KEY"
URL_VARIABLE = "DEVIN_API_URL"
DEFAULT_URL = "https://api.devin.ai"


def refuse_other_address(url: str) -> None:
    """Raise Unauthorized unless the environment says that the key is for `url`, as returned by `check_url`.

    No caller can override this: the key comes from the environment, so its address does too.
    """
    try:
        allowed = check_url(os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    except ValueError as error:
        raise Unauthorized(f"{URL_VARIABLE} is refused: {error}. Nothing was sent.") from None
    if url != allowed:
        raise Unauthorized(
            f"Nothing was sent to {url}: {KEY_VARIABLE} is only sent to {allowed}. "
            f"If {url} is the right address, set {URL_VARIABLE} to it in the environment of every process that runs "
            "the job."
        )


def key_from_environment() -> str:
    """The key to send with every request. Raises Unauthorized, with what to do, if it is missing or cannot be valid."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise Unauthorized(
            f"{KEY_VARIABLE} is not set. Put the personal key of an Enterprise admin (apk_user_…) or the key of a "
            "service user (cog_…) in the environment or in .env."
        )
    try:
        return check_key(key)
    except ValueError as error:
        raise Unauthorized(f"{KEY_VARIABLE} is refused: {error}.") from None


def digest_of_key(key: str, url: str) -> str:
    """A hash of the key and of the API's address, by which processes find that they have the same key."""
    return hashlib.sha256(f"{url} {key}".encode()).hexdigest()


def check_key(key: str) -> str:
    """Return `key` if it can be valid. Raises ValueError, which never quotes the key."""
    if key.startswith("apk_") and not key.startswith("apk_user_"):
        raise ValueError("it starts with apk_ but not apk_user_: a key for one organization cannot read the enterprise")
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", key):
        raise ValueError("it contains spaces or characters that no key has")
    return key


class UnknownKind(ValueError):
    """The key begins as no known kind of key does, and nothing else says which version it is for."""


def version_for(key: str, wanted: Literal["auto", "v2", "v3"]) -> VersionName:
    """The API version to use with this key. Raises ValueError, which never quotes the key, if they don't match."""
    of_key: VersionName | None = "v2" if key.startswith("apk_user_") else "v3" if key.startswith("cog_") else None
    if wanted == "auto":
        if of_key is None:
            raise UnknownKind(
                "it starts with neither apk_user_ nor cog_: copy it again. If it is right, it is of a kind that this "
                "release doesn't know, so DEVIN_API_VERSION must be v2 or v3"
            )
        return of_key
    if of_key not in (None, wanted):
        whose = "personal keys (apk_user_…)" if of_key == "v2" else "service user keys (cog_…)"
        raise ValueError(f"{whose} are for {of_key} of the API, but DEVIN_API_VERSION={wanted}")
    return wanted


def without_key(text: str) -> str:
    """`text` with every occurrence of the key replaced by `[key]`."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return text.replace(key, "[key]") if key else text
