"""Whose sessions are counted per day: organizations, and also users if the settings say so."""

from dataclasses import dataclass

import sqlalchemy as sa

from warehouse import tables


@dataclass(frozen=True, eq=False)
class Dimension:
    """Organizations or users: their names in sentences, how to request and choose them, and their tables.

    Both have the same tables with the same columns, except for `id`, `name_column` (None: no names are stored) and the
    columns that begin with `prefix`.

    question_filter: the parameter of the API client's count that takes their ids.
    setting: the environment variable that limits which of them are counted.
    is_extra: they are counted only if that variable is set, and messages about their counts say so; see `per_noun`.
    unattributed_hint: what to do if the API counts sessions of none of them although all of them were listed.
    unlisted_hint: the same if the list of sessions names whose they are, `{ids}`.
    rollups: the tables built from their counts.
    """

    noun: str
    plural: str
    id: str
    name_column: str | None
    prefix: str
    question_filter: str
    setting: str
    is_extra: bool
    unattributed_hint: str
    unlisted_hint: str
    listed: sa.Table
    cells: sa.Table
    totals: sa.Table
    revisions: sa.Table
    contradictions: sa.Table
    unattributed: sa.Table
    rollups: tuple[sa.Table, ...]

    @property
    def per_noun(self) -> str:
        """The suffix that tells counts of anything but organizations apart, such as " per user"; else empty."""
        return f" per {self.noun}" if self.is_extra else ""

    @property
    def has_service_users(self) -> bool:
        """Whether sessions may be those of service users, or of nobody, whom no list has: that is expected."""
        return "is_service_user" in self.unattributed.c

    @property
    def cells_noun(self) -> str:
        """What people call its cells: one is the count of one organization, or user, on one day."""
        return f"{self.noun}-days"


ORGANIZATIONS = Dimension(
    noun="organization",
    plural="organizations",
    id="org_id",
    name_column="org_name",
    prefix="orgs",
    question_filter="org_ids",
    setting="DEVIN_ORG_IDS",
    is_extra=False,
    unattributed_hint=(
        "The key may lack permission to list every organization. If you know of others, list all of them in "
        "DEVIN_ORG_IDS, then run: devin-sessions backfill --missing"
    ),
    unlisted_hint=(
        "The key may lack permission to list every organization. To count {ids} too, list all organizations in "
        "DEVIN_ORG_IDS, then run: devin-sessions backfill --missing"
    ),
    listed=tables.organizations,
    cells=tables.daily_sessions,
    totals=tables.daily_totals,
    revisions=tables.session_revisions,
    contradictions=tables.contradictions,
    unattributed=tables.unattributed_sessions,
    rollups=tables.ROLLUPS,
)

USERS = Dimension(
    noun="user",
    plural="users",
    id="user_id",
    name_column=None,
    prefix="users",
    question_filter="user_ids",
    setting="DEVIN_USER_IDS",
    is_extra=True,
    unattributed_hint="They may belong to service users or former members, in which case there is nothing to do.",
    unlisted_hint=(
        "For former members there is nothing to do. To count {ids} too, list all users in DEVIN_USER_IDS, then run: "
        "devin-sessions backfill --missing"
    ),
    listed=tables.users,
    cells=tables.user_daily_sessions,
    totals=tables.user_daily_totals,
    revisions=tables.user_session_revisions,
    contradictions=tables.user_contradictions,
    unattributed=tables.user_unattributed_sessions,
    rollups=(),
)

DIMENSIONS = (ORGANIZATIONS, USERS)
