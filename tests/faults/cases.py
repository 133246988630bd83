"""What a case is, and how it is played."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from resources.sandbox.server import Sandbox
from tests.faults.oracle import DatabaseName, Stage
from tests.faults.table import Verdict
from tests.support.forks import make_home


def make_source(seed: int, days: int, organizations: int) -> Sandbox:
    """A sandbox for the last `days` days, whose organizations were all created before them."""
    first_day = datetime.now(UTC).date() - timedelta(days=days + 70)
    return Sandbox(seed=seed, organizations=organizations, first_day=first_day)


@dataclass(frozen=True)
class Case:
    """One fault, with its own sandbox and warehouse.

    `play` makes it happen and judges the result. `may_miss`: whether it fires is up to chance. `undetectable`: why no
    request could reveal it. The last `days` days are loaded. `has_home`: Dagster has run before.
    """

    family: str
    name: str
    play: Callable[[Stage], None]
    database: DatabaseName = "duckdb"
    days: int = 12
    version: Literal["v2", "v3"] = "v2"
    settings: Mapping[str, str] = field(default_factory=dict)
    may_miss: bool = False
    undetectable: str = ""
    organizations: int = 5
    has_home: bool = True
    is_quick: bool = False

    def run(self, seed: int, postgresql_url: str | None = None) -> Verdict:
        """Play it, on this PostgreSQL database if it needs one."""
        verdict = Verdict(self.family, self.name, may_miss=self.may_miss)
        with (
            tempfile.TemporaryDirectory(prefix="fault-", ignore_cleanup_errors=True) as directory,
            make_source(seed, self.days, self.organizations) as source,
        ):
            url = postgresql_url or f"duckdb:///{directory}/warehouse/warehouse.duckdb"
            stage = Stage(verdict, source, Path(directory), url, self.days, self.settings, self.version)
            if self.has_home:
                make_home(Path(directory, "dagster"))
            self.play(stage)
            stage.close()
        if self.undetectable:
            verdict.undetectable = self.undetectable
        return verdict
