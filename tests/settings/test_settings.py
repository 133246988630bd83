"""Every setting has a default, says which values it allows, and is described on the settings page."""

import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import settings_page
from pipelines.home import PROJECT
from pipelines.settings import Settings
from tests.support.examples import examples
from tests.support.noon import NOON, ago
from tests.support.variables import SECRET, VARIABLES, load, refusal

# Defaults


def test_an_empty_variable_means_the_default() -> None:
    assert Settings.load().model_dump() == {
        "devin_api_key": None,
        "devin_api_version": "auto",
        "devin_allow_version_change": False,
        "devin_api_url": "https://api.devin.ai",
        "devin_org_ids": (),
        "devin_user_ids": (),
        "devin_window_end": "exclusive",
        "devin_start_date": date(2025, 1, 1),
        "devin_timezone": "UTC",
        "devin_day_start_hour": 0,
        "devin_lookback_days": 3,
        "devin_catch_up_days": 35,
        "devin_days_per_run": 366,
        "devin_max_connections": 64,
        "devin_requests_per_minute": None,
        "devin_timeout_seconds": 30.0,
        "devin_max_tries": 5,
        "devin_patience_seconds": 300.0,
        "devin_fetch": "auto",
        "devin_list_samples": 5,
        "devin_enterprise": "",
        "devin_asset_prefix": (),
        "devin_log_format": "text",
        "otel_exporter_otlp_endpoint": None,
        "devin_home": None,
        "warehouse_url": f"duckdb:///{PROJECT}/data/warehouse.duckdb",
        "devin_schema": "",
        "devin_lock_patience_seconds": 600.0,
        "devin_report_path": None,
        "devin_publish_url": "",
        "devin_alert_webhook_url": None,
    }


def test_each_variable_sets_its_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(
        monkeypatch,
        devin_api_key=f"cog_{SECRET}",
        devin_api_version="v3",
        devin_allow_version_change="true",
        devin_api_url="http://127.0.0.1:8000/devin/",
        devin_org_ids="org-1",
        devin_user_ids="user-1",
        devin_window_end="inclusive",
        devin_start_date="2024-02-29",
        devin_timezone="Europe/Berlin",
        devin_day_start_hour="8",
        devin_lookback_days="90",
        devin_catch_up_days="0",
        devin_days_per_run="1",
        devin_max_connections="256",
        devin_requests_per_minute="90",
        devin_timeout_seconds="0.5",
        devin_max_tries="20",
        devin_patience_seconds="86400",
        devin_fetch="listed",
        devin_list_samples="0",
        devin_enterprise="Acme_1",
        devin_asset_prefix="metrics/devin",
        devin_log_format="json",
        otel_exporter_otlp_endpoint="http://localhost:4318",
        devin_home=str(tmp_path),
        warehouse_url="postgresql+psycopg://127.0.0.1/sessions",
        devin_schema="metrics",
        devin_lock_patience_seconds="1.5",
        devin_report_path=f"{tmp_path}/page.html",
        devin_publish_url="s3://company-reports/devin/",
        devin_alert_webhook_url=f" https://hooks.example.com/{SECRET}?a=b ",
    )
    assert settings.devin_api_key is not None
    assert settings.devin_api_key.get_secret_value() == f"cog_{SECRET}"
    assert settings.devin_alert_webhook_url is not None
    assert settings.devin_alert_webhook_url.get_secret_value() == f"https://hooks.example.com/{SECRET}?a=b"
    assert settings.model_dump(exclude={"devin_api_key", "devin_alert_webhook_url"}) == {
        "devin_api_version": "v3",
        "devin_allow_version_change": True,
        "devin_api_url": "http://127.0.0.1:8000/devin",
        "devin_org_ids": ("org-1",),
        "devin_user_ids": ("user-1",),
        "devin_window_end": "inclusive",
        "devin_start_date": date(2024, 2, 29),
        "devin_timezone": "Europe/Berlin",
        "devin_day_start_hour": 8,
        "devin_lookback_days": 90,
        "devin_catch_up_days": 0,
        "devin_days_per_run": 1,
        "devin_max_connections": 256,
        "devin_requests_per_minute": 90,
        "devin_timeout_seconds": 0.5,
        "devin_max_tries": 20,
        "devin_patience_seconds": 86_400.0,
        "devin_fetch": "listed",
        "devin_list_samples": 0,
        "devin_enterprise": "acme_1",
        "devin_asset_prefix": ("metrics", "devin"),
        "devin_log_format": "json",
        "otel_exporter_otlp_endpoint": "http://localhost:4318",
        "devin_home": tmp_path,
        "warehouse_url": "postgresql+psycopg://127.0.0.1/sessions",
        "devin_schema": "metrics",
        "devin_lock_patience_seconds": 1.5,
        "devin_report_path": tmp_path / "page.html",
        "devin_publish_url": "s3://company-reports/devin/",
    }


def test_settings_do_not_change_once_they_are_loaded() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().devin_max_tries = 7  # type: ignore[misc]  # the type forbids it too


def test_settings_show_neither_the_key_nor_the_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = f"https://hooks.example.com/{SECRET}"
    settings = load(monkeypatch, devin_api_key=f"apk_user_{SECRET}", devin_alert_webhook_url=webhook)
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


# Refusals
IN_TWO_DAYS = (datetime.now(UTC) + timedelta(days=2)).date()

ADDRESS = "an https:// address; http:// only for this machine (127.0.0.1, ::1, localhost)"
ORG_IDS = "comma-separated organization ids, each of up to 128 letters, digits, `-` and `_`"
USER_IDS = (
    "`discover` for every user that the API lists, or comma-separated user ids, each of up to 128 characters "
    "without spaces"
)
DATE = "a date such as 2025-01-01, from 2020-01-01 up to yesterday"
TIMEZONE = "an IANA name such as UTC or Europe/Berlin"
COLLECTOR = "an http:// or https:// address without user and password"
SECONDS = "a number of seconds above 0, up to 600"
PAGE = "off, or a path that ends in .html"
HOME = "an absolute path of a directory; `~` is your home directory"
DATABASES = (
    "a DuckDB file as duckdb:///path/to/file.duckdb, a MotherDuck database as duckdb:///md:name, or a PostgreSQL "
    "database as postgresql+psycopg://user:password@host/database"
)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("devin_api_url", value, ADDRESS) for value in ("http://api.devin.ai", "ftp://127.0.0.1", "api.devin.ai")),
        *(("devin_api_url", value, ADDRESS) for value in ("https://", "https://[::1", "https://h#a")),
        *(("devin_org_ids", value, ORG_IDS) for value in (",", ", ,", "org 1", "org-1;org-2", "org/1", "örg")),
        *(("devin_org_ids", value, ORG_IDS) for value in ("o" * 129, '["org-1"]', "org-1,org-2\x1b", "null,*")),
        *(("devin_user_ids", value, USER_IDS) for value in (",", "user 1", "discover,user-1", "u" * 129, "üser")),
        *(("devin_allow_version_change", value, "true or false") for value in ("maybe", "2")),
        *(("devin_api_version", value, "auto, or the version that the key is for: v2 or v3") for value in ("v1", "3")),
        *(("devin_window_end", value, "exclusive or inclusive") for value in ("open", "Inclusive")),
        *(("devin_start_date", value, DATE) for value in ("2019-12-31", "2025-02-30", "yesterday", "01/02/2025")),
        *(("devin_start_date", value, DATE) for value in (f"{IN_TWO_DAYS}", "9999-12-31", "2025-01-01T12:00:00")),
        *(("devin_timezone", value, TIMEZONE) for value in ("Mars/Olympus", "utc", "+02:00", "../etc/passwd")),
        *(("devin_day_start_hour", value, "a whole number from 0 to 23") for value in ("-1", "24", "8.5", "eight")),
        *(("devin_lookback_days", value, "a whole number from 1 to 90") for value in ("0", "91", "-3", "nan")),
        *(("devin_catch_up_days", value, "a whole number from 0 to 3650") for value in ("-1", "3651", "x")),
        *(("devin_days_per_run", value, "a whole number from 1 to 3650") for value in ("0", "3651", "month")),
        *(("devin_max_connections", value, "a whole number from 1 to 256") for value in ("0", "257", "many")),
        *(("devin_requests_per_minute", value, "a whole number from 1 to 1000000") for value in ("0", "1000001", "x")),
        *(("devin_timeout_seconds", value, SECONDS) for value in ("0", "-1", "601", "nan", "inf", "30s")),
        *(("devin_max_tries", value, "a whole number from 1 to 20") for value in ("0", "21", "true")),
        *(
            (name, value, "a number of seconds from 1 to 86400")
            for name in ("devin_patience_seconds", "devin_lock_patience_seconds")
            for value in ("0.9", "86401", "nan")
        ),
        *(("devin_fetch", value, "auto, direct, differenced or listed") for value in ("Direct", "all", "0")),
        *(("devin_list_samples", value, "a whole number from 0 to 1000") for value in ("-1", "1001", "1.5")),
        *(("devin_report_path", value, PAGE) for value in ("report", "published/", "~", "Off", "none")),
        *(("devin_log_format", value, "text or json") for value in ("JSON", "true")),
        *(
            ("otel_exporter_otlp_endpoint", value, COLLECTOR)
            for value in ("localhost:4318", "ftp://a", "https://", "true")
        ),
        ("otel_exporter_otlp_endpoint", "http:///v1/metrics", COLLECTOR),
        *(("devin_home", value, HOME) for value in ("data", "./data", "~no-such-user/data", "/etc/hostname")),
        *(("warehouse_url", value, DATABASES) for value in ("warehouse.duckdb", "duckdb://", "duckdb:///")),
        *(("warehouse_url", value, DATABASES) for value in ("duckdb:///:memory:", "sqlite:///a.db", "duckdb://host/a")),
        *(("warehouse_url", value, DATABASES) for value in ("duckdb:///~no-such-user/a.duckdb", "postgresql://h/db")),
    ],
)
def test_an_invalid_value_is_refused_with_its_variable_and_the_allowed_values(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    message = refusal(monkeypatch, **{name: value})
    assert message.startswith(f"{name.upper()}={value!r} is refused")
    assert message.endswith(f". Allowed: {allowed}.")
    assert "\n" not in message


@pytest.mark.parametrize("name", VARIABLES)
def test_the_refusal_of_every_variable_says_what_is_allowed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    message = refusal(monkeypatch, **{name.lower(): "\x1b[2J"})
    assert message.startswith(name)
    assert message.isprintable()
    extra = Settings.model_fields[name.lower()].json_schema_extra
    assert isinstance(extra, dict)
    assert message.endswith(f"Allowed: {extra['allowed']}.")


VALID = {
    "DEVIN_API_KEY": f"cog_{SECRET}",
    "DEVIN_API_VERSION": "auto",
    "DEVIN_ALLOW_VERSION_CHANGE": "true",
    "DEVIN_API_URL": "https://api.devin.ai",
    "DEVIN_ORG_IDS": "org-1",
    "DEVIN_USER_IDS": "discover",
    "DEVIN_WINDOW_END": "inclusive",
    "DEVIN_START_DATE": "2024-02-29",
    "DEVIN_TIMEZONE": "Europe/Berlin",
    "DEVIN_FETCH": "direct",
    "DEVIN_ASSET_PREFIX": "metrics",
    "DEVIN_LOG_FORMAT": "text",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318",
    "DEVIN_HOME": "/nowhere/home",
    "WAREHOUSE_URL": "duckdb:////nowhere/warehouse.duckdb",
    "DEVIN_SCHEMA": "metrics",
    "DEVIN_REPORT_PATH": "/nowhere/report.html",
    "DEVIN_PUBLISH_URL": "gs://company-reports/devin",
    "DEVIN_ALERT_WEBHOOK_URL": f"https://hooks.example.com/{SECRET}",
}
"""A value for each variable; the ones that are not here are numbers."""


@given(
    st.sampled_from(VARIABLES),
    st.text("\r\n\t \u00a0\u2003", max_size=3),
    st.text("\r\n\t \u00a0\u2003", max_size=3),
    st.sampled_from(["", *"\r\n\t\x00\x1b\x7f\x85\u200b\u202e\ufeff"]),
    st.integers(0, 10),
)
@examples(40)
def test_of_every_setting_blanks_around_it_are_taken_off_and_what_cannot_be_seen_in_it_is_refused(
    name: str, before: str, after: str, unseen: str, at: int
) -> None:
    plain = VALID.get(name, "9")
    # The character is in the middle; at either end it may be a blank.
    at = min(max(1, at), len(plain) - 1) if len(plain) > 1 else 0
    value = plain[:at] + unseen + plain[at:] if len(plain) > 1 or unseen.strip() else plain
    if "\0" in value:
        return  # no variable can hold it
    with pytest.MonkeyPatch.context() as monkeypatch:
        for other in VARIABLES:
            monkeypatch.setenv(other, "")
        if name == "DEVIN_SCHEMA":
            monkeypatch.setenv("WAREHOUSE_URL", "postgresql+psycopg://127.0.0.1/sessions")
        expected = load(monkeypatch, **{name: plain})
        if value == plain:
            assert load(monkeypatch, **{name: f"{before}{plain}{after}"}) == expected
        else:
            message = refusal(monkeypatch, **{name: f"{before}{value}{after}"})
            assert message.startswith(name)
            assert message.isprintable() and SECRET not in message


def test_several_invalid_variables_are_refused_together_with_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, devin_max_tries="0", devin_timezone="Mars/Olympus", devin_api_key=f"apk_{SECRET}")
    assert [line.split(" ")[0].split("=")[0] for line in message.splitlines()] == [
        "DEVIN_API_KEY",
        "DEVIN_TIMEZONE",
        "DEVIN_MAX_TRIES",
    ]


def test_a_very_long_value_is_truncated_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(refusal(monkeypatch, devin_max_tries="9" * 5000)) < 400


@pytest.mark.parametrize("value", [f"apk_{SECRET}", f"apk_user_ {SECRET}", f"apk_user_{SECRET}\u2013"])
def test_a_key_that_cannot_work_is_refused_without_being_quoted(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    message = refusal(monkeypatch, devin_api_key=value)
    assert message.startswith("DEVIN_API_KEY is refused (it ")
    assert message.endswith("Allowed: a key that starts with `apk_user_` (for v2 of the API) or `cog_` (for v3).")
    assert SECRET not in message


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (f"http://hooks.example.com/{SECRET}", "messages would travel unencrypted"),
        (f"http://127.0.0.1.example.com/{SECRET}", "messages would travel unencrypted"),
        (f"ftp://127.0.0.1/{SECRET}", "not an address"),
        (f"hooks.example.com/{SECRET}", "not an address"),
        (f"https:///{SECRET}", "not an address"),
        (f"https://user:{SECRET}@hooks.example.com/", "user and password do not belong in it"),
        (f"https://[::1/{SECRET}", "not an address"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    assert refusal(monkeypatch, devin_alert_webhook_url=value) == (
        f"DEVIN_ALERT_WEBHOOK_URL is refused ({why}). Allowed: the https:// address of a webhook that accepts Slack's "
        "JSON; http:// only for this machine."
    )


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]", "localhost"])
def test_a_webhook_on_this_machine_needs_no_encryption(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert load(monkeypatch, devin_alert_webhook_url=f"http://{host}/").devin_alert_webhook_url


@pytest.mark.parametrize(("key", "version"), [(f"cog_{SECRET}", "v2"), (f"apk_user_{SECRET}", "v3")])
def test_a_version_that_the_key_is_not_for_is_refused_without_quoting_the_key(
    monkeypatch: pytest.MonkeyPatch, key: str, version: str
) -> None:
    message = refusal(monkeypatch, devin_api_key=key, devin_api_version=version)
    assert message.startswith(f"DEVIN_API_VERSION={version!r} is refused (DEVIN_API_KEY: ")
    assert SECRET not in message


def test_a_key_of_an_unknown_kind_is_at_fault_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, devin_api_key=f"other_{SECRET}")
    assert message.startswith("DEVIN_API_KEY is refused (it starts with neither apk_user_ nor cog_: copy it again.")
    assert "DEVIN_API_VERSION must be v2 or v3" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("key", "version"), [("cog_a", "auto"), ("cog_a", "v3"), ("apk_user_a", "v2"), ("other", "v2"), ("other", "v3")]
)
def test_a_version_fits_its_kind_of_key_and_either_version_fits_an_unknown_kind(
    monkeypatch: pytest.MonkeyPatch, key: str, version: str
) -> None:
    assert load(monkeypatch, devin_api_key=key, devin_api_version=version).devin_api_version == version


def test_user_ids_may_contain_the_characters_that_identity_providers_use(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, devin_user_ids="google-oauth2|1234, email|a.b+c@example.com,user-1,user-1")
    assert settings.devin_user_ids == ("google-oauth2|1234", "email|a.b+c@example.com", "user-1")


def test_whitespace_around_the_key_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    key = load(monkeypatch, devin_api_key=f" apk_user_{SECRET}\n").devin_api_key
    assert key is not None
    assert key.get_secret_value() == f"apk_user_{SECRET}"


@pytest.mark.parametrize("name", ["devin_api_url", "warehouse_url"])
@pytest.mark.parametrize(
    "value",
    [
        f"https://user:{SECRET}@example.com/path",
        f"https://:{SECRET}@example.com",
        f"postgresql+psycopg2://user:{SECRET}@example.com:5432/db",
        f"postgresql://user:p@{SECRET}@example.com/db",
        f"postgresql://user:{SECRET}/@example.com/db",
        f"postgresql://user:p:{SECRET}@example.com/db",
        f"https://{'u' * 300}:{SECRET}@example.com",
        f"postgresql://example.com/db?user=u&password={SECRET}",
        f"https://example.com/?a=b&token={SECRET}",
        f"https://{SECRET}@example.com",
    ],
)
def test_a_refused_address_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    message = refusal(monkeypatch, **{name: value})
    assert message.startswith(f"{name.upper()}='")
    assert SECRET not in message


def test_a_refused_address_still_shows_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, devin_api_url=f"https://user:{SECRET}@example.com/path?token={SECRET}")
    assert message.startswith("DEVIN_API_URL='https://***@example.com/path?***' is refused (user, password, query ")


# Dates and organizations


def test_history_may_start_in_2020_or_yesterday_but_not_today(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, devin_start_date="2020-01-01").devin_start_date == date(2020, 1, 1)
    assert f"{load(monkeypatch, devin_start_date=ago(1), devin_timezone=NOON).devin_start_date}" == ago(1)
    assert "no day since then is closed" in refusal(monkeypatch, devin_start_date=ago(0), devin_timezone=NOON)


def test_organization_ids_are_split_stripped_and_each_kept_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, devin_org_ids=f" org-b,org_A ,\torg-b,,{'o' * 128}, org-b,")
    assert settings.devin_org_ids == ("org-b", "org_A", "o" * 128)


def test_a_malformed_organization_id_is_quoted_even_among_valid_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "('org 2' is not an organization id)" in refusal(monkeypatch, devin_org_ids="org-1, org 2 ,org-3")


# The page


def test_the_settings_page_is_up_to_date() -> None:
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page.as_markdown(), "docs/settings.md is out of date: run `make docs`"


def test_the_page_has_a_row_of_four_cells_for_every_variable() -> None:
    rows = re.findall(
        r"^\| (`[A-Z_]+`) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", settings_page.as_markdown(), re.MULTILINE
    )
    assert sorted(row[0] for row in rows) == sorted(f"`{name}`" for name in VARIABLES)
    assert all(cell.strip() for row in rows for cell in row)
    defaults = {row[0]: row[1] for row in rows}
    assert defaults["`DEVIN_API_KEY`"] == "none"
    assert defaults["`DEVIN_ALLOW_VERSION_CHANGE`"] == "`false`"
    assert defaults["`DEVIN_TIMEOUT_SECONDS`"] == "`30`"


def test_the_page_is_written_to_a_file_or_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["settings_page"])
    settings_page.main()
    assert capsys.readouterr().out == settings_page.as_markdown()
    monkeypatch.setattr("sys.argv", ["settings_page", f"{tmp_path}/page.md"])
    settings_page.main()
    assert capsys.readouterr().out == ""
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == settings_page.as_markdown()


def test_reading_settings_loads_no_http_client_and_no_dagster() -> None:
    loads = "import sys, pipelines.settings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", loads], cwd=PROJECT, capture_output=True, check=True, text=True)
    assert "pipelines.settings" in loaded.stdout.split()
    assert not {"httpx", "httpcore", "aiohttp", "anyio", "dagster"} & set(loaded.stdout.split())
