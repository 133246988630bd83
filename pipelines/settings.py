"""Every environment variable of this project: its type, default, meaning and allowed values.

Nothing else reads the environment, with three exceptions: `resources` reads secrets itself, so that no Dagster object
ever holds them; `command.dagster_home` reads DAGSTER_HOME; and libraries read their own variables.
"""

import os
import re
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipelines import env_files, home
from resources.addresses import check_url, check_webhook
from resources.database import Database
from resources.database_schema import check_schema
from resources.database_secrets import is_on_this_machine
from resources.devin_key import UnknownKind, check_key, version_for
from resources.file_errors import obstacle
from resources.publish_address import PublishAddress
from warehouse.dimensions import DIMENSIONS, Dimension

DISCOVER = "discover"
OTHERS_IN_HOME = {"dagster", "demo", "published", "sandbox"}
"""Directories in DEVIN_HOME which no enterprise may have: the demo, for one, empties its own."""

SECRETS = ("devin_api_key", "devin_alert_webhook_url")
"""Settings that are never shown. Dagster gets neither of them: the code that sends them reads the environment."""


_NOT_QUOTED = (*SECRETS, "devin_publish_url")  # the last one is none, but one that is refused may hold one

Strategy = Literal["direct", "differenced", "listed", "cheapest"]
"""How a load learns its counts; the cheapest is decided for each block."""


class SettingsRefused(ValueError):
    """At least one setting has a value that is not allowed. The message is for the user, with one line per setting."""


def _setting(default: Any, description: str, allowed: str, **constraints: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **constraints)


def is_timezone(name: str) -> bool:
    """Whether this machine has a time zone of this name."""
    return name in _timezones(zoneinfo.TZPATH)


@cache
def _timezones(_: tuple[str, ...]) -> set[str]:
    """The names of the zones on this path. To list them takes some 600 files."""
    return zoneinfo.available_timezones()


class Settings(BaseSettings):
    """The settings of one process, read from the environment. Each field is named after its variable, in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, validate_default=True)

    devin_api_key: SecretStr | None = _setting(
        None,
        "Personal key of an Enterprise admin, or key of a service user. Sent in a request header, never stored.",
        "a key that starts with `apk_user_` (for v2 of the API) or `cog_` (for v3)",
    )
    devin_api_version: Literal["auto", "v2", "v3"] = _setting(
        "auto",
        "Version of the API. `auto` uses the one that the key is for.",
        "auto, or the version that the key is for: v2 or v3",
    )
    devin_allow_version_change: bool = _setting(
        False,
        "Whether to load into a warehouse that holds counts from the other version of the API.",
        "true or false",
    )
    devin_api_url: str = _setting(
        "https://api.devin.ai",
        "Address of the API.",
        "an https:// address; http:// only for this machine (127.0.0.1, ::1, localhost)",
    )
    devin_org_ids: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Organizations to count. Unset: every organization that the API lists.",
        "comma-separated organization ids, each of up to 128 letters, digits, `-` and `_`",
    )
    devin_user_ids: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Users to count as well, in separate tables. Unset: none.",
        f"`{DISCOVER}` for every user that the API lists, or comma-separated user ids, each of up to 128 characters "
        "without spaces",
    )
    devin_window_end: Literal["exclusive", "inclusive"] = _setting(
        "exclusive",
        "Whether the API counts a session created exactly at the end of a window; `devin-sessions probe` finds out. "
        "With `inclusive`, the end sent is one microsecond earlier in v2 of the API, and one second earlier in v3.",
        "exclusive or inclusive",
    )
    devin_start_date: date = _setting(
        date(2025, 1, 1),
        "First day of history.",
        "a date such as 2025-01-01, from 2020-01-01 up to yesterday",
        ge=date(2020, 1, 1),
    )
    devin_timezone: str = _setting(
        "UTC",
        "Time zone in which a day begins and ends.",
        "an IANA name such as UTC or Europe/Berlin",
    )
    devin_day_start_hour: int = _setting(
        0,
        "Hour at which a day begins. `8` with UTC is Devin's billing day.",
        "a whole number from 0 to 23",
        ge=0,
        le=23,
    )
    devin_lookback_days: int = _setting(
        3,
        "How many closed days each scheduled run reads: the latest one, and the ones before it again.",
        "a whole number from 1 to 90",
        ge=1,
        le=90,
    )
    devin_catch_up_days: int = _setting(
        35,
        "How many days back the schedule looks for days that aren't loaded, for example because the machine was off.",
        "a whole number from 0 to 3650",
        ge=0,
        le=3650,
    )
    devin_days_per_run: int = _setting(
        366,
        "How many days one run spans at most. A longer backfill, in the UI too, is several runs, one after the other; "
        "the rollups, the checks, the snapshot and the report follow the last one.",
        "a whole number from 1 to 3650",
        ge=1,
        le=3650,
    )
    devin_max_connections: int = _setting(
        64,
        "Maximum number of concurrent requests.",
        "a whole number from 1 to 256",
        ge=1,
        le=256,
    )
    devin_requests_per_minute: int | None = _setting(
        None,
        "Maximum number of requests a minute, spread evenly, of all processes together that use the same warehouse "
        "and key. Unset: no limit beyond what the API allows.",
        "a whole number from 1 to 1000000",
        ge=1,
        le=1_000_000,
    )
    devin_timeout_seconds: float = _setting(
        30.0,
        "Timeout of one request, from connecting to the last byte.",
        "a number of seconds above 0, up to 600",
        gt=0,
        le=600,
    )
    devin_max_tries: int = _setting(
        5,
        "How many times a request is sent, retries included, before it counts as failed.",
        "a whole number from 1 to 20",
        ge=1,
        le=20,
    )
    devin_patience_seconds: float = _setting(
        300.0,
        "How long a load waits while the API answers no request at all. Also the longest pause the API may ask for.",
        "a number of seconds from 1 to 86400",
        ge=1,
        le=86_400,
    )
    devin_fetch: Literal["auto", "direct", "differenced", "listed"] = _setting(
        "auto",
        "How counts are fetched: `direct` requests each organization and day, `differenced` derives most counts from "
        "totals, `listed` takes them from the list of sessions and proves them by totals. `auto` is `direct` for up to "
        "`DEVIN_LOOKBACK_DAYS` days; for more, whichever of the other two takes fewer requests. `direct` and "
        "`differenced` never read the list.",
        "auto, direct, differenced or listed",
    )
    devin_list_samples: int = _setting(
        5,
        "Where counts come from the list of sessions: how many more totals of each block are requested and compared, "
        "each of random organizations over random days.",
        "a whole number from 0 to 1000",
        ge=0,
        le=1000,
    )
    devin_enterprise: str = _setting(
        "",
        "Name of the enterprise, for a Dagster in which several have a code location each. It begins the names of job, "
        "schedule and sensors, ends the pool's, and is the default of `DEVIN_ASSET_PREFIX`, of `DEVIN_SCHEMA` on "
        "PostgreSQL, and of a directory in `DEVIN_HOME` for what no other setting places. Capitals count as small "
        "letters. Set it before the first run: another name is another enterprise. Unset: no names change.",
        "up to 32 letters, digits and underscores",
    )
    devin_asset_prefix: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Prefix of the keys of all assets, for a Dagster in which other assets have the same names. Set it before the "
        "first run: Dagster takes assets with another prefix for new ones. Unset: `DEVIN_ENTERPRISE`, or none.",
        "letters, digits and underscores, with a `/` between parts",
    )
    devin_log_format: Literal["text", "json"] = _setting(
        "text",
        "How `devin-sessions` reports what it does: in sentences, or in one JSON object per line on standard error, "
        "with numbers as fields.",
        "text or json",
    )
    otel_exporter_otlp_endpoint: str | None = _setting(
        None,
        "OpenTelemetry collector that receives the metrics of each load over OTLP/HTTP. Needs the extra `otel`, which "
        "`make` installs. Unset: none.",
        "an http:// or https:// address without user and password",
    )
    devin_home: Path | None = _setting(
        None,
        "Directory for everything that no other setting places: the warehouse, its published copies, Dagster's record "
        "of runs, and a `.env` file. Unset: `data` in a checkout, otherwise the user's data directory.",
        "an absolute path of a directory; `~` is your home directory",
    )
    warehouse_url: str = _setting(
        "",
        "The warehouse. Unset: the file `warehouse.duckdb` in `DEVIN_HOME`, or in the enterprise's directory there.",
        "a DuckDB file as duckdb:///path/to/file.duckdb, a MotherDuck database as duckdb:///md:name, or a PostgreSQL "
        "database as postgresql+psycopg://user:password@host/database",
    )
    devin_schema: str = _setting(
        "",
        "Schema of the PostgreSQL database in which the warehouse is, so that the database can hold other things too. "
        "The first load creates it. Unset: `DEVIN_ENTERPRISE`; without that, what the search_path of the user or the "
        "address says, usually `public`.",
        "up to 63 lower-case letters, digits and underscores, not beginning with a digit or `pg_`, and no reserved "
        "word of SQL; only with a warehouse on PostgreSQL",
    )
    devin_lock_patience_seconds: float = _setting(
        600.0,
        "How long a run waits on PostgreSQL for other runs that are writing to the warehouse. For a DuckDB file that "
        "another program has open, it waits 30 seconds.",
        "a number of seconds from 1 to 86400",
        ge=1,
        le=86_400,
    )
    devin_report_path: Path | None = _setting(
        None,
        "File to which the activity report is written; `off` for none. Unset: `published/report.html` next to the "
        "warehouse's file, or in `DEVIN_HOME`, in the enterprise's directory if there is one, if the warehouse is on a "
        "server.",
        "off, or a path that ends in .html",
    )
    devin_publish_url: str = _setting(
        "",
        "Where the tables are published as Parquet files, with a manifest and the report, for other machines and query "
        "engines; see [publishing](publishing.md). The cloud's own variables have the credentials. Unset: nowhere.",
        "an absolute path of a directory, s3://bucket/folder, gs://bucket/folder or "
        "abfs://container@account.dfs.core.windows.net/folder, without credentials",
    )
    devin_alert_webhook_url: SecretStr | None = _setting(
        None,
        "Webhook that gets a message when a run fails or a check needs attention, and one when that is resolved. "
        "Unset: none. The address is treated as a secret, like the key.",
        "the https:// address of a webhook that accepts Slack's JSON; http:// only for this machine",
    )

    @field_validator("devin_api_key")
    @classmethod
    def _usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        stripped = key.get_secret_value().strip() if key else ""
        return SecretStr(check_key(stripped)) if stripped else None

    @field_validator("devin_alert_webhook_url")
    @classmethod
    def _usable_webhook(cls, url: SecretStr | None) -> SecretStr | None:
        return SecretStr(check_webhook(url.get_secret_value())) if url else None

    @field_validator("devin_api_url")
    @classmethod
    def _safe_url(cls, url: str) -> str:
        return check_url(url)

    @field_validator("devin_api_version")
    @classmethod
    def _fits_key(cls, version: Literal["auto", "v2", "v3"], info: ValidationInfo) -> str:
        if key := info.data.get("devin_api_key"):
            try:
                version_for(key.get_secret_value(), version)
            except UnknownKind:
                raise  # see _refusal: the key is at fault
            except ValueError as error:
                raise ValueError(f"DEVIN_API_KEY: {error}") from None
        return version

    @field_validator("devin_org_ids", mode="before")
    @classmethod
    def _split_org_ids(cls, value: object) -> object:
        return _split(value, r"[A-Za-z0-9_-]{1,128}", "organization")

    @field_validator("devin_user_ids", mode="before")
    @classmethod
    def _split_user_ids(cls, value: object) -> object:
        user_ids = _split(value, r"[!-+\--~]{1,128}", "user")
        if isinstance(user_ids, tuple) and DISCOVER in user_ids and len(user_ids) > 1:
            raise ValueError(f"{DISCOVER} cannot be combined with ids")
        return user_ids

    @field_validator("devin_enterprise")
    @classmethod
    def _usable_enterprise(cls, name: str) -> str:
        if name and not re.fullmatch(r"\w{1,32}", name, re.ASCII):
            raise ValueError("not a name that Dagster takes")
        if name.lower() in OTHERS_IN_HOME:
            raise ValueError("DEVIN_HOME keeps something else in a directory of this name")
        return name.lower()  # neither PostgreSQL nor every file system tells Acme from acme

    @field_validator("devin_asset_prefix", mode="before")
    @classmethod
    def _split_prefix(cls, value: object, info: ValidationInfo) -> object:
        if not value and (enterprise := info.data.get("devin_enterprise")):
            return (enterprise,)
        if not isinstance(value, str):
            return value
        if not re.fullmatch(r"\w+(/\w+)*", value, re.ASCII):
            raise ValueError("not a prefix")
        return tuple(value.split("/"))

    @field_validator("devin_start_date")
    @classmethod
    def _start_in_the_past(cls, day: date) -> date:
        if day >= datetime.now(UTC).date():
            raise ValueError("no day since then is closed")
        return day

    @field_validator("devin_timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        if name != cls.model_fields["devin_timezone"].default and not is_timezone(name):
            raise ValueError("unknown time zone")
        return name

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _collector(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"(?i)https?://[^/?#@\s]+([/?#]\S*)?", url):
            raise ValueError("not an address")
        return url

    @field_validator("devin_home", mode="before")
    @classmethod
    def _usable_home(cls, value: object) -> object:
        return home.checked(value) if isinstance(value, str) else value

    @field_validator("warehouse_url")
    @classmethod
    def _usable_warehouse(cls, value: str, info: ValidationInfo) -> str:
        if not {"devin_home", "devin_enterprise"} <= info.data.keys():  # it is refused itself
            return value
        if not value:
            return Database.url_of(home.home() / info.data["devin_enterprise"] / "warehouse.duckdb")
        try:
            url = sa.make_url(value)
        except sa.exc.ArgumentError:
            raise ValueError("not a database URL") from None
        if url.drivername == "postgresql+psycopg":
            _check_postgresql(url)
            # The password stays in the environment, where Database finds it, so that no setting ever shows it.
            return url.render_as_string(hide_password=True)
        if url.drivername != "duckdb" or url.host or not url.database or url.database == ":memory:":
            raise ValueError("neither a DuckDB file nor a PostgreSQL database")
        if url.database.startswith("md:"):
            if url.query or not re.fullmatch(r"md:[A-Za-z0-9_]+", url.database):
                raise ValueError("not the name of a database; the token belongs in MOTHERDUCK_TOKEN")
            return url.render_as_string(hide_password=False)
        return url.set(database=str(_file_of(url.database))).render_as_string(hide_password=False)

    @field_validator("devin_schema")
    @classmethod
    def _usable_schema(cls, name: str, info: ValidationInfo) -> str:
        url = info.data.get("warehouse_url")  # None if it is refused itself
        on_duckdb = bool(url) and Database(url=str(url)).is_duckdb
        if name and on_duckdb:
            raise ValueError("the warehouse in WAREHOUSE_URL is not on PostgreSQL")
        if not name and not on_duckdb and (enterprise := info.data.get("devin_enterprise")):
            try:
                if enterprise == "public":
                    raise ValueError("a warehouse of no enterprise is usually there")
                return check_schema(enterprise)
            except ValueError as error:
                raise ValueError(f"unset, and DEVIN_ENTERPRISE={enterprise} can't be the schema: {error}") from None
        return check_schema(name) if name else name

    @field_validator("devin_report_path")
    @classmethod
    def _html_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None or path == Path("off") or "devin_home" not in info.data:
            return path
        path = home.start_of_relative_paths() / path
        if path.suffix != ".html" or os.path.isdir(path):  # noqa: PTH112 it may be where this user can't look
            raise ValueError("not a path that ends in .html")
        return path

    @field_validator("devin_publish_url")
    @classmethod
    def _publishable(cls, value: str) -> str:
        if value:
            PublishAddress.parse(value)
        return value

    @field_validator("*", mode="before")
    @classmethod  # the last one, which makes it the first to run
    def _without_control_characters(cls, value: object, info: ValidationInfo) -> object:
        is_list = info.field_name in ("devin_org_ids", "devin_user_ids")  # between ids, line ends and tabs are blanks
        if isinstance(value, str) and not value.isprintable() and not is_list:
            raise ValueError("it contains a character that is not visible")
        return value

    @property
    def warehouse(self) -> Database:
        """The database of the warehouse."""
        patience = self.devin_lock_patience_seconds
        return Database(url=self.warehouse_url, schema=self.devin_schema, lock_patience_seconds=patience)

    @property
    def published_snapshot(self) -> Path | None:
        """The copy of the warehouse that analysts read, next to it; None if the warehouse is on a server."""
        warehouse = self.warehouse
        return warehouse.path.parent / "published" / "devin_sessions.duckdb" if warehouse.is_file else None

    @property
    def published_folder(self) -> PublishAddress | None:
        """Where files are published for other machines; None if nowhere."""
        if not self.devin_publish_url:
            return None
        address = PublishAddress.parse(self.devin_publish_url)
        return address.folder(self.devin_enterprise) if self.devin_enterprise else address

    @property
    def asking_lock(self) -> Path | None:
        """The file that whoever asks the API keeps locked; None with PostgreSQL, where all share one pace."""
        warehouse = self.warehouse
        if not warehouse.is_duckdb:
            return None
        # It is the same file whatever links led to it.
        path = Path(os.path.realpath(warehouse.path)) if warehouse.is_file else self._directory / "warehouse.duckdb"
        return path.with_name(f"{path.name}.asking")

    @property
    def published_report(self) -> Path | None:
        """The file of the activity report; None if it is off."""
        if self.devin_report_path == Path("off"):
            return None
        if self.devin_report_path:
            return self.devin_report_path
        snapshot = self.published_snapshot
        return (snapshot.parent if snapshot else self._directory / "published") / "report.html"

    @property
    def _directory(self) -> Path:
        """Where the files are that no setting places."""
        return home.home() / self.devin_enterprise

    @property
    def dimensions(self) -> list[Dimension]:
        """Whose sessions are counted."""
        return [dimension for dimension in DIMENSIONS if self._configured_ids(dimension) or not dimension.is_extra]

    def chosen(self, dimension: Dimension) -> tuple[str, ...]:
        """The ids that the user chose to count; empty means every one that the API lists."""
        ids = self._configured_ids(dimension)
        return () if ids == (DISCOVER,) else ids

    def _configured_ids(self, dimension: Dimension) -> tuple[str, ...]:
        ids: tuple[str, ...] = getattr(self, dimension.setting.lower())
        return ids

    @property
    def settled_after_days(self) -> int:
        """How many days after its end a day is read for the last time, on the last night of its look-back."""
        return self.devin_lookback_days - 1

    def strategy(self, days: int) -> Strategy:
        """How a load of `days` days learns its counts."""
        if self.devin_fetch != "auto":
            return self.devin_fetch
        return "cheapest" if days > self.devin_lookback_days else "direct"

    @classmethod
    def load(cls) -> "Settings":
        """The settings of this process. The `.env` files of `env_files` fill in what the environment lacks.

        Raises SettingsRefused with each invalid variable, its value (never a secret) and what is allowed.
        """
        env_files.read(setting_names())
        try:
            return cls()
        except ValidationError as error:
            raise SettingsRefused("\n".join(_refusal(e) for e in error.errors())) from None


def setting_names() -> list[str]:
    """The variable of each setting."""
    return [name.upper() for name in Settings.model_fields]


def _check_postgresql(url: sa.URL) -> None:
    options = url.normalized_query
    if not url.database:
        raise ValueError("the name of the database is missing")
    if {"password", "sslpassword"} & options.keys():
        raise ValueError("put the password before the @, where it is never shown")
    if "@" in (url.host or ""):
        raise ValueError("write an @ in a password as %40")
    if {"disable", "allow", "prefer"} & {*options.get("sslmode", ())} and not is_on_this_machine(url):
        raise ValueError("the password would travel unencrypted: set sslmode to require or verify-full")
    if {encoding.lower().replace("-", "") for encoding in options.get("client_encoding", ())} - {"utf8"}:
        raise ValueError("client_encoding can only be utf8")


def _file_of(database: str) -> Path:
    try:
        path = home.start_of_relative_paths() / Path(database).expanduser()
        is_directory = path.is_dir()
    except RuntimeError:
        raise ValueError("not a valid path") from None
    except OSError as error:
        raise ValueError(obstacle(error, path).why) from None
    if is_directory:
        raise ValueError("this is a directory; give a file in it")
    return path


def _split(value: object, pattern: str, noun: str) -> object:
    if not isinstance(value, str):
        return value
    ids = [part.strip() for part in value.split(",") if part.strip()]
    for id_ in ids:
        if not re.fullmatch(pattern, id_):
            raise ValueError(f"{id_!r} is not {'an' if noun[0] in 'aeio' else 'a'} {noun} id")
    if not ids:
        raise ValueError(f"it contains no {noun} id")
    return tuple(dict.fromkeys(ids))


def allowed(name: str) -> str:
    """The values that this field allows, in words."""
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["allowed"])


def _refusal(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    if isinstance(error.get("ctx", {}).get("error"), UnknownKind):
        name = "devin_api_key"
    value = re.sub(r"(?s)://.*@", "://***@", str(error["input"]))
    value = re.sub(r"(?s)(://[^?]*\?).*", r"\1***", value)[:200]
    shown = "" if name in _NOT_QUOTED else f"={value!r}"
    why = f" ({error['ctx']['error']})" if error["type"] == "value_error" else ""
    return f"{name.upper()}{shown} is refused{why}. Allowed: {allowed(name)}."
