"""Counts per user beside those per organization, in both versions of the API, over real HTTP, DuckDB and runs."""

import json
import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from pipelines.checks import CONTROL_TOTALS_AGREE, Verdict
from pipelines.command import exit_codes
from pipelines.command.dagster_home import open_instance
from pipelines.loading.block_size import SESSIONS_PER_WINDOW
from pipelines.loading.listed import windows_of
from pipelines.names import JOB
from pipelines.partitions import closed_days, daily_partitions
from pipelines.schedules import range_tags
from resources.sandbox.contract import (
    LIST_PATH,
    LIST_PATH_V3,
    MEMBERS_PATH,
    MEMBERS_PATH_V3,
    ORGANIZATIONS_PATH,
    SESSIONS_PATH,
    SESSIONS_PATH_V3,
    Version,
)
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.support.command import command_here, in_this_process
from tests.support.forks import make_home
from tests.support.loads import fill
from tests.support.noon import NOON
from tests.support.published import seem_published
from tests.support.warehouse import migrated
from tests.support.world import World
from warehouse import reads, writes
from warehouse.dimensions import ORGANIZATIONS, USERS
from warehouse.writes import Provenance, Reading

PER_USER, PER_ORGANIZATION = dg.AssetKey(USERS.cells.name), dg.AssetKey(ORGANIZATIONS.cells.name)
OF_USERS = [USERS.listed, USERS.cells]
OF_BOTH = [ORGANIZATIONS.listed, ORGANIZATIONS.cells, *OF_USERS]
COUNTED_TABLES = [ORGANIZATIONS.cells, ORGANIZATIONS.totals, USERS.cells, USERS.totals]
Cells = dict[tuple[date, str], int]


def member_ids(source: Sandbox) -> list[str]:
    return [member.user_id for member in source.members]


def truth_of_users(world: World, first: str, last: str, user_ids: Iterable[str] = ()) -> Cells:
    """Every cell of these users, or of all members if none is given, as the API has it."""
    return {
        (day.day, user_id): world.source.truth(day.start, day.end, user_ids=[user_id])
        for day in world.days(first, last)
        for user_id in user_ids or member_ids(world.source)
    }


def cells_of_users(world: World) -> Cells:
    """Every user's cell as the warehouse has it."""
    rows = world.rows("select day, user_id, sessions_count from user_daily_sessions")
    return {(day, user_id): count for day, user_id, count in rows}


def questions(world: World) -> list[LoggedRequest]:
    """The questions for counts that the API received, in either version."""
    return [asked for asked in world.source.requests if asked.path in (SESSIONS_PATH, SESSIONS_PATH_V3)]


def checks_of(result: dg.ExecuteInProcessResult, asset: dg.AssetKey) -> dict[str, dg.AssetCheckEvaluation]:
    """The checks of this asset; those of the other asset have the same names."""
    return {check.check_name: check for check in result.get_asset_check_evaluations() if check.asset_key == asset}


def red(result: dg.ExecuteInProcessResult, asset: dg.AssetKey) -> set[str]:
    """The checks of this asset that failed, except the one about the latest day."""
    failed = {name for name, check in checks_of(result, asset).items() if not check.passed}
    return failed - {"latest_closed_day_is_present"}


def run_only(world: World, tables: Iterable[sa.Table], first: str = "", last: str = "") -> dg.ExecuteInProcessResult:
    """One run of part of the job: the assets that fill these tables, over these days if given."""
    return world.definitions.resolve_job_def(JOB).execute_in_process(
        instance=world.instance,
        asset_selection=[dg.AssetKey(table.name) for table in tables],
        tags=range_tags(first, last) if first else {},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def api_versions(world: World) -> dict[str, dict[int, set[str]]]:
    """By table and day of the month: the versions of the API that its rows were read from."""
    found: dict[str, dict[int, set[str]]] = {table.name: {} for table in COUNTED_TABLES}
    selects = [f"select '{name}', day(day), api_version from {name}" for name in found]
    for name, day, version in world.rows(" union ".join(selects)):
        found[name].setdefault(day, set()).add(version)
    return found


def stored_in(world: World, *names: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of these tables, or of all tables of the warehouse if none is given."""
    with world.database.transaction(read_only=True) as connection:
        every = connection.scalars(sa.text("select table_name from information_schema.tables")).all()
        return {
            name: [tuple(row) for row in connection.execute(sa.text(f'select * from "{name}" order by all'))]
            for name in names or every
        }


def test_without_the_setting_there_are_no_assets_of_users(world: World) -> None:
    def assets() -> set[str]:
        return {spec.key.to_user_string() for spec in world.definitions.resolve_all_asset_specs()}

    assert assets().isdisjoint({"users", "user_daily_sessions"})
    world.configure(devin_user_ids="discover")
    assert assets() >= {"users", "user_daily_sessions"}


@pytest.mark.parametrize(
    ("version", "first", "last", "fetch"),
    [("v2", "2025-02-20", "2025-02-22", "direct"), ("v3", "2025-03-01", "2025-03-05", "auto")],
)
def test_the_warehouse_equals_the_api_user_by_user_even_if_the_api_has_only_one_version(
    world: World, version: Version, first: str, last: str, fetch: str
) -> None:
    with Sandbox(organizations=3, versions=(version,)) as source:
        world.source = source
        world.configure(devin_api_url=source.url, devin_user_ids="discover", devin_fetch=fetch)
        world.configure(devin_api_key=source.api_key if version == "v2" else source.service_key)
        result = world.load(first, last)
        assert result.success, world.failures(result)
        truth, days = truth_of_users(world, first, last), world.days(first, last)
        assert cells_of_users(world) == truth
        assert world.cells() == world.truth(first, last)
        totals = {day.day: source.truth(day.start, day.end) for day in days}
        assert dict(world.rows("select day, sessions_count from daily_totals")) == totals
        everyone = len(source.members)
        assert set(
            world.rows("select * exclude (window_start, window_end, loaded_at, run_id) from user_daily_totals")
        ) == {(day, total, total, 0, everyone, everyone, version) for day, total in totals.items()}
        assert api_versions(world) == {t.name: {day.day.day: {version} for day in days} for t in COUNTED_TABLES}
        assert {asked.path.split("/")[1] for asked in source.requests} == {version}
        names = {(o.org_id, o.org_name) for o in source.organizations}
        assert set(world.rows("select org_id, org_name from organizations")) == names
        listed = {(member.user_id, member.created_at if version == "v2" else None) for member in source.members}
        assert set(world.rows("select user_id, created_at from users")) == listed
        assert red(result, PER_USER) == red(result, PER_ORGANIZATION) == set()
        assert checks_of(result, PER_USER).keys() - checks_of(result, PER_ORGANIZATION).keys() == {
            "control_totals_agree",
            "every_user_is_available",
        }
        about_users = [asked for asked in questions(world) if asked.user_ids]
        if fetch == "direct":
            assert {(asked.start, asked.user_ids) for asked in about_users} == {
                (day.start, (user_id,)) for day in days for user_id in member_ids(source)
            }
            assert len(about_users) == len(truth)
        else:
            assert len([asked for asked in questions(world) if not asked.org_ids]) < len(truth), "totals included"


def test_only_configured_users_are_counted_and_sessions_of_others_are_not_a_warning(world: World) -> None:
    chosen = [world.source.organizations[0].user_ids[0], world.source.organizations[2].user_ids[1]]
    world.configure(devin_user_ids=",".join(chosen))
    result = run_only(world, OF_USERS, "2025-04-01", "2025-04-05")
    assert result.success, world.failures(result)
    cells = truth_of_users(world, "2025-04-01", "2025-04-05", chosen)
    assert cells_of_users(world) == cells
    assert {user_id for asked in questions(world) for user_id in asked.user_ids} == set(chosen)
    assert not [asked for asked in world.source.requests if asked.path == MEMBERS_PATH]
    assert set(world.rows("select user_id, created_at from users")) == {(user_id, None) for user_id in chosen}
    others = {}
    for day in world.days("2025-04-01", "2025-04-05"):
        total, counted = world.source.truth(day.start, day.end), sum(cells[day.day, user_id] for user_id in chosen)
        others[day.day] = (total, counted, total - counted, 2, 2)
    columns = "day, sessions_count, users_sessions_count, unattributed_count, users_expected, users_loaded"
    assert {row[0]: row[1:] for row in world.rows(f"select {columns} from user_daily_totals")} == others
    check = checks_of(result, PER_USER)["counts_sum_to_control_totals"]
    assert check.passed
    assert check.metadata["unattributed_sessions"].value == sum(row[2] for row in others.values()) > 0


def pages(world: World) -> int:
    """How many pages of the list of sessions the API served, in either version."""
    return len([asked for asked in world.source.requests if asked.path in (LIST_PATH, LIST_PATH_V3)])


@pytest.mark.parametrize(
    ("version", "last", "strategy"), [("v2", "2025-04-02", "direct"), ("v3", "2025-04-05", "listed")]
)
def test_sessions_of_nobody_and_of_service_users_are_told_apart_and_expected(
    world: World, version: Version, last: str, strategy: str
) -> None:
    with Sandbox(organizations=3, memberless=0.3) as source:
        world.source = source
        world.configure(devin_api_url=source.url, devin_user_ids="discover")
        world.configure(devin_api_key=source.api_key if version == "v2" else source.service_key)
        if strategy == "listed":
            world.configure(devin_fetch=strategy)
        result = world.load("2025-04-01", last)
        assert result.success, world.failures(result)
        assert cells_of_users(world) == truth_of_users(world, "2025-04-01", last)
        assert world.cells() == world.truth("2025-04-01", last)
        check = checks_of(result, PER_USER)["counts_sum_to_control_totals"]
        assert red(result, PER_USER) == red(result, PER_ORGANIZATION) == set()
        total = sum(world.truth("2025-04-01", last).values()) - sum(cells_of_users(world).values())
        ((service_user,),) = world.rows("select distinct user_id from user_unattributed_sessions where user_id <> ''")
        days = world.days("2025-04-01", last)
        of_service = sum(source.truth(day.start, day.end, user_ids=[service_user]) for day in days)
        whose = "service users" if version == "v3" else "service users or former members"
        assert str(check.description).endswith(
            f"The rest is expected: {total - of_service} sessions without a user, {of_service} of {whose}."
        )
        assert check.metadata["sessions_without_a_user"].value == total - of_service > 0
        assert check.metadata["sessions_of_service_users"].value == of_service > 0
        assert world.rows("select distinct is_service_user from user_unattributed_sessions where user_id <> ''") == [
            (True if version == "v3" else None,)
        ]
        if strategy == "listed":
            assert world.progress.metrics.cells.listed == len(days) * (3 + len(source.members))
            totals = [source.truth(day.start, day.end) for day in days]
            windows = windows_of(totals, SESSIONS_PER_WINDOW)
            assert pages(world) == sum(math.ceil(sum(totals[a:b]) / 200) for a, b in windows), "read once for both"


def test_the_command_reads_the_list_once_for_both_although_each_has_a_run_of_its_own(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.configure(devin_user_ids="discover", devin_fetch="listed")
    code, _, err = command_here(capsys, world.environment)("backfill", "2025-04-01", "2025-04-03")
    assert code == 0, err
    assert cells_of_users(world) == truth_of_users(world, "2025-04-01", "2025-04-03")
    assert world.rows("select distinct how from user_daily_sessions") == [("listed",)]
    totals = [world.source.truth(day.start, day.end) for day in world.days("2025-04-01", "2025-04-03")]
    assert pages(world) == sum(math.ceil(sum(totals[a:b]) / 200) for a, b in windows_of(totals, SESSIONS_PER_WINDOW))


def test_sessions_of_an_unlisted_user_are_a_warning_that_says_whose_they_may_be(world: World) -> None:
    org_id = world.source.organizations[0].org_id
    world.source.add_sessions(org_id, datetime(2025, 4, 2, 12, tzinfo=UTC), count=3, user_id="user-former")
    world.configure(devin_user_ids="discover", devin_api_key=world.source.service_key)
    result = world.load("2025-04-02", "2025-04-02")
    assert result.success, world.failures(result)
    assert cells_of_users(world) == truth_of_users(world, "2025-04-02", "2025-04-02")
    check = checks_of(result, PER_USER)["counts_sum_to_control_totals"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == (
        "The API counts sessions that belong to no listed user on 2025-04-02. "
        "3 sessions on 1 day belong to user-former, which is not in the list of users. For former members there is "
        "nothing to do. To count user-former too, list all users in DEVIN_USER_IDS, then run: devin-sessions backfill "
        "--missing"
    )
    assert check.metadata["unattributed_sessions"].value == 3
    assert red(result, PER_USER) == {"counts_sum_to_control_totals"}
    assert red(result, PER_ORGANIZATION) == set(), "they belong to a listed organization"


def test_a_total_that_changed_between_counting_organizations_and_users_is_a_warning(world: World) -> None:
    (day,) = world.days("2025-04-02", "2025-04-02")
    by = Provenance("v2", datetime(2025, 4, 4, tzinfo=UTC), "run")

    def agree(organizations: int, users: int) -> Verdict:
        with migrated(world.database).transaction() as connection:
            for dimension, total in ((ORGANIZATIONS, organizations), (USERS, users)):
                read = Reading(day.day, day.start, day.end, total, {"id": total}, {}, expected=1)
                writes.store_days(connection, dimension, [read], by)
            return CONTROL_TOTALS_AGREE.judge(connection, USERS, world.settings)

    assert agree(7, 7).passed
    verdict = agree(7, 9)
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert verdict.sentence == (
        "The API's total changed between two readings of 2025-04-02. "
        "To read again: devin-sessions backfill 2025-04-02 2025-04-02 --refresh"
    )
    assert agree(9, 9).passed


def test_the_command_loads_users_for_days_that_were_loaded_without_them_and_status_shows_both(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.configure(devin_timezone=NOON, dagster_event_batch_size="1000")
    days = closed_days(daily_partitions(world.settings))[-3:]
    first, last = days[0].isoformat(), days[-1].isoformat()
    with Sandbox(organizations=3, first_day=days[0] - timedelta(1)) as source:
        world.source = source
        world.configure(devin_api_url=source.url, devin_start_date=first)
        make_home(world.directory / "dagster")
        fill(world, first, last)
        seem_published(world)
        code, shown = in_this_process(capsys, world.environment, "status", "--json")
        assert (code, "users" in json.loads(shown)) == (0, False)

        world.configure(devin_user_ids="discover")
        code, shown = in_this_process(capsys, world.environment, "status")
        assert code == exit_codes.MISSING
        advice = f"{first}…{last} (3 days). To load: devin-sessions backfill {first} {last}"
        assert f"Missing per user: {advice}" in shown
        assert "Missing: " not in shown

        source.requests.clear()
        code, shown = in_this_process(capsys, world.environment, "backfill", first, last)
        assert code == 0, shown
        truth = truth_of_users(world, first, last)
        sessions = sum(world.truth(first, last).values())
        assert (
            f"3 of 3 days loaded per user: {sessions:,} sessions; {len(truth)} user-days new, 0 changed, 0 unchanged; "
            f"{len(source.requests)} calls (0 retries)" in shown
        )
        assert shown.count(" days loaded") == 1
        assert not [asked for asked in source.requests if asked.org_ids or asked.path == ORGANIZATIONS_PATH]
        assert cells_of_users(world) == truth

        source.requests.clear()
        code, shown = in_this_process(capsys, world.environment, "backfill", first, last)
        assert code == 0
        assert f"Nothing to do: {first}…{last} (3 days) already loaded." in shown
        assert source.requests == []
        code, shown = in_this_process(capsys, world.environment, "status", "--json")
        assert code == 0
        status = json.loads(shown)
        assert list(status)[:2] == ["organizations", "users"]
        numbers = ("days_expected", "days_loaded", "days_reconciled", "counted", "sessions_count")
        assert [status["organizations"][name] for name in numbers] == [3, 3, 3, 3, sessions]
        assert [status["users"][name] for name in numbers] == [3, 3, 3, len(source.members), sessions]


def test_a_refused_user_is_reported_and_retried_and_the_others_are_loaded(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = world.source.organizations[3].user_ids[-1]
    world.configure(devin_user_ids="discover", devin_fetch="differenced")
    fill(world, "2025-03-01", "2025-03-02")
    world.source.fail(status=404, when=lambda asked: refused in asked.user_ids, times=None)
    result = run_only(world, OF_USERS, "2025-03-03", "2025-03-04")
    assert result.success, world.failures(result)
    assert [a for a in questions(world) if a.status == 404 and len(a.user_ids) > 1], (
        "it shared a question with quiet ones"
    )
    truth = truth_of_users(world, "2025-03-01", "2025-03-04")
    open_ = {(date(2025, 3, day), refused) for day in (3, 4)}
    assert cells_of_users(world) == {cell: count for cell, count in truth.items() if cell not in open_}
    ((user_id, reason),) = world.rows(
        "select user_id, unavailable_reason from users where unavailable_since is not null or unavailable_reason <> ''"
    )
    assert user_id == refused
    assert reason.startswith(f"2025-03-04: Counting sessions of user {refused} from ")
    assert "404" in reason
    checks = checks_of(result, PER_USER)
    check = checks["every_user_is_available"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert refused in str(check.description)
    assert not checks["every_cell_is_present"].passed, "a day that lacks a user is not complete"
    everyone = len(world.source.members)
    assert set(world.rows("select users_expected, users_loaded from user_daily_totals where day > '2025-03-02'")) == {
        (everyone, everyone - 1)
    }
    code, shown = in_this_process(capsys, world.environment, "status")
    assert code == exit_codes.MISSING
    assert f"Not counted: {refused}, refused on 2025-03-04" in shown

    world.source.heal()
    result = run_only(world, OF_USERS, "2025-03-03", "2025-03-04")
    assert checks_of(result, PER_USER)["every_user_is_available"].passed
    assert cells_of_users(world) == truth


def test_a_key_that_may_not_list_members_fails_with_the_setting_to_use_and_organizations_are_stored(
    world: World,
) -> None:
    with Sandbox(organizations=3, lists_members=False) as source:
        world.source = source
        world.configure(devin_api_url=source.url, devin_user_ids="discover")
        result = run_only(world, OF_BOTH, "2025-04-01", "2025-04-03")
        assert not result.success
        (message,) = world.failures(result).splitlines()
        assert message.endswith(
            "The key may count sessions but not list users: "
            "set DEVIN_USER_IDS to the ids to count, separated by commas."
        )
        assert world.cells() == world.truth("2025-04-01", "2025-04-03")
        assert world.materialized_days() == {"2025-04-01", "2025-04-02", "2025-04-03"}
        assert red(result, PER_ORGANIZATION) == set()
        assert cells_of_users(world) == {}


def test_emails_and_names_of_members_are_nowhere_in_the_warehouse(world: World) -> None:
    world.configure(devin_user_ids="discover", devin_allow_version_change="true")
    private = [text for member in world.source.members for text in (member.email, member.name) if text]
    assert len(private) > len(world.source.members)
    for path, key in ((MEMBERS_PATH, world.source.api_key), (MEMBERS_PATH_V3, world.source.service_key)):
        world.configure(devin_api_key=key)
        world.source.requests.clear()
        assert run_only(world, [USERS.listed]).success
        assert path in {asked.path for asked in world.source.requests}
        stored = "\n".join(str(value) for rows in stored_in(world).values() for row in rows for value in row)
        assert all(user_id in stored for user_id in member_ids(world.source)), "every table was searched"
        assert not [text for text in private if text in stored]


def test_a_warehouse_of_v2_refuses_a_key_of_v3_before_anything_is_counted_unless_a_change_of_version_is_allowed(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    user_id = member_ids(world.source)[0]
    world.configure(devin_user_ids=user_id)
    fill(world, "2025-04-01", "2025-04-03")
    before = stored_in(world, *(table.name for table in COUNTED_TABLES))
    world.source.requests.clear()
    world.configure(devin_api_key=world.source.service_key)
    code, shown = in_this_process(capsys, world.environment, "backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.WRONG_USE
    assert shown.startswith("The warehouse holds counts of v2 of the API, but the key and DEVIN_API_VERSION=auto mean")
    assert "DEVIN_ALLOW_VERSION_CHANGE=true" in shown
    assert world.source.requests == []
    result = run_only(world, OF_BOTH, "2025-04-01", "2025-04-05")
    assert not result.success
    assert set(world.failures(result).splitlines()) == {shown.strip()}
    assert len(result.get_step_failure_events()) == 2, "for organizations and for users"
    assert questions(world) == []
    assert stored_in(world, *(table.name for table in COUNTED_TABLES)) == before

    world.configure(devin_allow_version_change="true")
    result = run_only(world, OF_BOTH, "2025-04-03", "2025-04-04")
    assert result.success, world.failures(result)
    changes = [load.metrics.changes for load in world.progress.results]
    assert sorted((c.inserted, c.changed, c.unchanged) for c in changes) == [(1, 0, 1), (5, 0, 5)]
    by_day = {1: {"v2"}, 2: {"v2"}, 3: {"v3"}, 4: {"v3"}}
    assert api_versions(world) == {table.name: by_day for table in COUNTED_TABLES}, (
        "each row has the version that it was last read from"
    )
    assert world.cells() == world.truth("2025-04-01", "2025-04-04")
    assert cells_of_users(world) == truth_of_users(world, "2025-04-01", "2025-04-04", [user_id])


def test_after_a_chosen_list_an_id_of_unknown_creation_is_missing_on_all_days_and_others_since_their_creation(
    world: World,
) -> None:
    created = {organization.org_id: organization.created_at for organization in world.source.organizations}
    one, *others = created
    assert created[one]
    for ids, day in ((one, "2025-02-01"), ("", "2025-03-01"), (one, "2025-03-02")):
        world.configure(devin_org_ids=ids)
        assert world.load(day, day, judged=False).success
    world.configure(devin_org_ids="")
    assert run_only(world, [ORGANIZATIONS.listed]).success

    before_all_were_seen, since = world.days("2025-02-01", "2025-02-01") + world.days("2025-03-02", "2025-03-02")
    unknown = sum(created[id_] is None for id_ in others)
    old = sum(1 for id_ in others if (at := created[id_]) and at < before_all_were_seen.end)
    young = sum(1 for id_ in others if (at := created[id_]) and before_all_were_seen.end < at < since.start)
    assert min(unknown, old, young) > 0
    assert unknown + old + young == len(others)
    with world.database.transaction(read_only=True) as connection:
        missing_of_listed = reads.missing_cells(connection, ORGANIZATIONS)
        missing_of_chosen = reads.missing_cells(connection, ORGANIZATIONS, tuple(created))
    for missing in (missing_of_listed, missing_of_chosen):
        assert missing == {before_all_were_seen.day: old + unknown, since.day: len(others)}


def test_after_a_run_that_failed_on_one_day_exactly_the_stored_days_are_materialized(world: World) -> None:
    chosen = member_ids(world.source)[:2]
    world.configure(devin_user_ids=",".join(chosen), devin_fetch="direct", dagster_event_batch_size="1000")
    bad = datetime(2025, 4, 3, tzinfo=UTC)
    world.source.fail(status=503, when=lambda a: a.start == bad and chosen[1] in a.user_ids, times=None)
    make_home(world.directory / "dagster")
    with open_instance() as instance:
        world.instance = instance
        result = run_only(world, OF_USERS, "2025-04-01", "2025-04-05")
        assert not result.success
        message = world.failures(result)
        assert "Not loaded: 2025-04-03. Everything else is stored." in message
        assert chosen[1] in message
        stored = {day.isoformat() for day, _ in cells_of_users(world)}
        assert stored == {"2025-04-01", "2025-04-02", "2025-04-04", "2025-04-05"}
        assert set(instance.get_materialized_partitions(PER_USER)) == stored
        shown = [record.event_log_entry for record in instance.fetch_materializations(PER_USER, limit=100).records]
        sessions = {
            entry.asset_materialization.partition: entry.asset_materialization.metadata["sessions_count"].value
            for entry in shown
            if entry.asset_materialization
        }
        assert len(shown) == 4, "each once"
        assert sessions == {
            day.day.isoformat(): world.source.truth(day.start, day.end)
            for day in world.days("2025-04-01", "2025-04-05")
            if day.start != bad
        }
