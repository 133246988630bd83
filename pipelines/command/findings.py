"""What `devin-sessions probe` finds: a verdict on one question about the API, what was seen, and what to do."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from resources.devin_errors import DevinAPIError

Verdict = Literal["good", "note", "bad", "unknown"]

PROBE_BUSIER_DAYS = "Probe busier days: devin-sessions probe --until DAY"


@dataclass(frozen=True)
class Finding:
    """The answer to one question: the verdict, what was seen, and what to do about it."""

    question: str
    verdict: Verdict
    seen: str
    advice: str = ""


async def or_unknown(
    question: str,
    finding: Coroutine[Any, Any, Finding],
    advice: str = "Probe again. If it fails again, ask the API's owner.",
) -> Finding:
    """The finding, or an unknown one with this advice if its requests fail."""
    try:
        return await finding
    except DevinAPIError as error:
        return Finding(question, "unknown", str(error), advice)
