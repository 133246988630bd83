"""The words in which a check tells whose the unattributed sessions are, as far as the list of sessions names them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import sqlalchemy as sa

from resources.first_few import first_few
from warehouse import unattributed
from warehouse.dimensions import Dimension
from warehouse.unattributed import Owner

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
            **(
                {
                    f"sessions_without_a_{dimension.noun}": _sum(self._nobodys),
                    "sessions_of_service_users": _sum(self._service_users(dimension)),
                }
                if dimension.has_service_users
                else {}
            ),
            "named_unattributed_sessions": _sum(self.owners),
            f"unattributed_{dimension.plural}": len(self.owners) - len(self._nobodys),
            f"sessions_of_unattributed_{dimension.plural}": dg.MetadataValue.json(
                {owner.id: {"sessions": owner.sessions, "days": owner.days} for owner in first}
            ),
        }

    @property
    def _nobodys(self) -> list[Owner]:
        return [owner for owner in self.owners if owner.is_nobodys]

    def _service_users(self, dimension: Dimension) -> list[Owner]:
        return [owner for owner in self.owners if dimension.has_service_users and owner.may_be_service_user]

    def expected(self, dimension: Dimension) -> tuple[int, str]:
        """How many sessions are expected to be in no count, and whose: service users', or nobody's."""
        if not dimension.has_service_users:
            return 0, ""
        nobodys, service_users = self._nobodys, self._service_users(dimension)
        whose = "service users" if all(o.is_service_user for o in service_users) else "service users or former members"
        parts = [(_sum(nobodys), f"without a {dimension.noun}"), (_sum(service_users), f"of {whose}")]
        found = [(number, words) for number, words in parts if number]
        if not found:
            return 0, ""
        (number, words), *rest = found
        first = f"{number:,} session{'' if number == 1 else 's'} {words}"
        return sum(n for n, _ in found), ", ".join([first, *(f"{n:,} {others}" for n, others in rest)])

    def advice(self, dimension: Dimension) -> str:
        """Whose sessions are in no count although all were to be counted, and what to do."""
        noun, plural = dimension.noun, dimension.plural
        found = []
        _, expected = self.expected(dimension)
        if expected:
            found.append(f"Expected: {expected}.")
        elif nobodys := self._nobodys:
            found.append(f"{_sessions(nobodys[0])} have no {noun} in the list of sessions.")
        service_users = self._service_users(dimension)
        named = [owner for owner in self.owners if not owner.is_nobodys and owner not in service_users]
        unlisted = [owner for owner in named if not owner.is_listed]
        if not named:
            found.append(dimension.unattributed_hint)
        if unlisted:
            are = "which is" if len(unlisted) == 1 else "which are"
            found.append(f"{_belong_to(unlisted)}, {are} not in the list of {plural}.")
            found.append(dimension.unlisted_hint.format(ids=_ids(unlisted)))
        if uncounted := [owner for owner in named if owner.is_listed]:
            first, last = min(o.first_day for o in uncounted), max(o.last_day for o in uncounted)
            which = "which has" if len(uncounted) == 1 else "which have"
            found.append(
                f"{_belong_to(uncounted)}, {which} no count on these days. To read them again: devin-sessions backfill "
                f"{first} {last} --refresh"
            )
        return " ".join(found)

    def in_brief(self) -> str:
        """Whose sessions are in no count because others were chosen, as the end of a sentence."""
        all_of_them = [f"{_sessions(owner)} to {'nobody' if owner.is_nobodys else owner.id}" for owner in self.owners]
        return f": {first_few(all_of_them)}" if all_of_them else ""


def _belong_to(owners: Sequence[Owner]) -> str:
    one, *others = owners
    return first_few([f"{_sessions(one)} belong to {one.id}", *(f"{_sessions(o)} to {o.id}" for o in others)])


def _sum(owners: Sequence[Owner]) -> int:
    return sum(owner.sessions for owner in owners)


def _ids(owners: Sequence[Owner]) -> str:
    return first_few([owner.id for owner in owners])


def _sessions(owner: Owner) -> str:
    sessions = "1 session" if owner.sessions == 1 else f"{owner.sessions:,} sessions"
    return f"{sessions} on {'1 day' if owner.days == 1 else f'{owner.days:,} days'}"
