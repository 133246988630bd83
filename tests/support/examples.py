"""How many examples the costly property tests play: a few in `make test`, EXAMPLES times as many in `make proof`."""

import os
from typing import Any

from hypothesis import settings


def examples(number: int, **options: Any) -> settings:
    """Settings of a test with this number of examples in `make test`; the other `options` are Hypothesis's own."""
    return settings(max_examples=number * int(os.environ.get("EXAMPLES", "1")), deadline=None, **options)
