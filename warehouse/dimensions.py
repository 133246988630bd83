"""Whose sessions are counted per day: organizations, and users as well if the settings say so."""

from dataclasses import dataclass

import sqlalchemy as sa

from warehouse import tables


@dataclass(frozen=True, eq=False)
class Dimension:
    """One of them: how it is called, asked about and chosen, and the tables about it.

    The tables have the same columns in each, but for `id`, `name_column` (None: they have no name) and columns that
    begin with `prefix`.

    question_filter: the argument of the API client's count that takes their ids.
    setting: the environment variable in which the user chooses among them.
    is_extra: they are counted only if that variable is set, and sentences about them say so: see `per_noun`.
    unattributed_hint: what to do if the API counts sessions of none of them although all were listed.
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
    listed: sa.Table
    cells: sa.Table
    totals: sa.Table
    revisions: sa.Table
    contradictions: sa.Table
    rollups: tuple[sa.Table, ...]

    @property
    def per_noun(self) -> str:
        """What a sentence about counts adds where it isn't about organizations, with a blank before it."""
        return f" per {self.noun}" if self.is_extra else ""


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
        "The key may not be allowed to list every organization. If you know of others, name all in DEVIN_ORG_IDS, "
        "then: devin-sessions backfill --missing"
    ),
    listed=tables.organizations,
    cells=tables.daily_sessions,
    totals=tables.daily_totals,
    revisions=tables.session_revisions,
    contradictions=tables.contradictions,
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
    unattributed_hint="They may be those of service users or of former members; then nothing is to be done.",
    listed=tables.users,
    cells=tables.user_daily_sessions,
    totals=tables.user_daily_totals,
    revisions=tables.user_session_revisions,
    contradictions=tables.user_contradictions,
    rollups=(),
)

DIMENSIONS = (ORGANIZATIONS, USERS)
