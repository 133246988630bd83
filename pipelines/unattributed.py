"""The words in which a check tells whose the unattributed sessions are, as far as the list of sessions names them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import sqlalchemy as sa

from warehouse import unattributed
from warehouse.dimensions import Dimension
from warehouse.unattributed import Owner

SHOWN = 3
"""So many ids are in a sentence."""

IN_METADATA = 100


@dataclass(frozen=True)
class Named:
    """Those whose unattributed sessions are stored by name, the ones with the most sessions first."""

    owners: Sequence[Owner]

    @classmethod
    def read(cls, connection: sa.Connection, dimension: Dimension, since: date) -> "Named":
        """Those of the days from `since` on."""
        return cls(unattributed.owners(connection, dimension, since))

    def metadata(self, dimension: Dimension) -> dict[str, Any]:
        """The sessions and days of each, of the first IN_METADATA of them; nothing if nobody is named."""
        if not self.owners:
            return {}
        first = self.owners[:IN_METADATA]
        return {
            "named_unattributed_sessions": sum(owner.sessions for owner in self.owners),
            f"unattributed_{dimension.plural}": len([owner for owner in self.owners if owner.id]),
            f"sessions_of_unattributed_{dimension.plural}": dg.MetadataValue.json(
                {owner.id: {"sessions": owner.sessions, "days": owner.days} for owner in first}
            ),
        }

    def sentences(self, dimension: Dimension) -> str:
        """Whose sessions are in no count although all were to be counted, and what to do; empty if nobody is named."""
        noun, plural = dimension.noun, dimension.plural
        found = []
        if nobodys := [owner for owner in self.owners if not owner.id]:
            found.append(f"{_sessions(nobodys[0])} have no {noun} in the list of sessions.")
        unlisted = [owner for owner in self.owners if owner.id and not owner.is_listed]
        if unlisted:
            are = "which is" if len(unlisted) == 1 else "which are"
            found.append(f"{_belong_to(unlisted)}, {are} not in the list of {plural}.")
            found.append(dimension.unlisted_hint.format(ids=_ids(unlisted)))
        if uncounted := [owner for owner in self.owners if owner.is_listed]:
            first, last = min(o.first_day for o in uncounted), max(o.last_day for o in uncounted)
            which = "which has" if len(uncounted) == 1 else "which have"
            found.append(
                f"{_belong_to(uncounted)}, {which} no count on these days. To read them again: devin-sessions backfill "
                f"{first} {last} --refresh"
            )
        return " ".join(found)

    def in_brief(self) -> str:
        """Whose sessions are in no count because others were chosen, as the end of a sentence."""
        first = [f"{_sessions(owner)} {f'to {owner.id}' if owner.id else 'to nobody'}" for owner in self.owners[:SHOWN]]
        return f": {', '.join(first)}{_more(self.owners)}" if first else ""


def _belong_to(owners: Sequence[Owner]) -> str:
    one, *others = owners[:SHOWN]
    return ", ".join([f"{_sessions(one)} belong to {one.id}", *(f"{_sessions(o)} to {o.id}" for o in others)]) + _more(
        owners
    )


def _ids(owners: Sequence[Owner]) -> str:
    return ", ".join(owner.id for owner in owners[:SHOWN]) + _more(owners)


def _more(owners: Sequence[Owner]) -> str:
    return f" and {len(owners) - SHOWN:,} more" if len(owners) > SHOWN else ""


def _sessions(owner: Owner) -> str:
    sessions = "1 session" if owner.sessions == 1 else f"{owner.sessions:,} sessions"
    return f"{sessions} on {'1 day' if owner.days == 1 else f'{owner.days:,} days'}"
