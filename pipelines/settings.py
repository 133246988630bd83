"""Every environment variable of this project: type, default, one line of meaning, and what is allowed.

Nothing else reads the environment, but for three: `resources` takes secrets from there itself, so that no object of
Dagster's ever holds them, `command.dagster_home` reads Dagster's own DAGSTER_HOME, and libraries read what is theirs.
"""

import os
import re
import stat
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import sqlalchemy as sa
from dotenv import load_dotenv
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resources.addresses import check_url, check_webhook
from resources.database import Database
from resources.database_secrets import is_on_this_machine
from resources.devin_key import check_key, version_for
from warehouse.dimensions import DIMENSIONS, Dimension

PROJECT = Path(__file__).resolve().parents[1]
"""The project's folder: relative paths in settings start here, whatever the working directory is."""

ENV_FILE = PROJECT / ".env"

DISCOVER = "discover"

SECRETS = ("devin_api_key", "devin_alert_webhook_url")
"""The settings that nothing shows. Dagster gets neither: what sends them takes them from the environment."""


class SettingsRefused(ValueError):
    """One or more settings have a value that is not allowed. The message is for the user, a line each."""


def _setting(default: Any, description: str, allowed: str, **constraints: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **constraints)


class Settings(BaseSettings):
    """The settings of one process, read from the environment. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, validate_default=True)

    devin_api_key: SecretStr | None = _setting(
        None,
        "Personal key of an Enterprise admin, or key of a service user. Sent in a request header, never stored.",
        "a key that starts with `apk_user_` (for v2 of the API) or `cog_` (for v3)",
    )
    devin_api_version: Literal["auto", "v2", "v3"] = _setting(
        "auto",
        "Version of the API. `auto` takes the one that the key is for.",
        "auto, or the one that the key is for: v2 or v3",
    )
    devin_allow_version_change: bool = _setting(
        False,
        "Whether to load into a warehouse that holds counts of the other version of the API.",
        "true or false",
    )
    devin_api_url: str = _setting(
        "https://api.devin.ai",
        "Address of the API.",
        "an https:// address; http:// for this machine alone (127.0.0.1, ::1, localhost)",
    )
    devin_org_ids: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Organizations to count. Unset: every organization that the API lists.",
        "organization ids separated by commas, each of letters, digits, `-` and `_`, up to 128",
    )
    devin_user_ids: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Users to count as well, in separate tables. Unset: none.",
        f"`{DISCOVER}` for every user that the source lists, or user ids separated by commas, each without blanks and "
        "up to 128 characters",
    )
    devin_window_end: Literal["exclusive", "inclusive"] = _setting(
        "exclusive",
        "Whether the API counts a session created at the very end of a window. `devin-sessions probe` finds out. "
        "With `inclusive`, the end that is sent is one microsecond earlier in v2 of the API, and one second in v3.",
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
        "How many closed days each scheduled run reads: the latest one and those before it, again.",
        "a whole number from 1 to 90",
        ge=1,
        le=90,
    )
    devin_catch_up_days: int = _setting(
        35,
        "How many days back the schedule looks for days that are not loaded, such as after the machine was off.",
        "a whole number from 0 to 3650",
        ge=0,
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
        "Maximum number of requests a minute, spread evenly. Unset: no limit beyond what the API allows.",
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
        "How many times one request is sent in all before it counts as failed.",
        "a whole number from 1 to 20",
        ge=1,
        le=20,
    )
    devin_patience_seconds: float = _setting(
        300.0,
        "How long a load waits while the API answers nothing at all. Also the longest pause the API may ask for.",
        "a number of seconds from 1 to 86400",
        ge=1,
        le=86_400,
    )
    devin_fetch: Literal["auto", "direct", "differenced"] = _setting(
        "auto",
        "How counts are fetched: `direct` asks for every organization and day, `differenced` derives most counts from "
        "totals, `auto` is direct for up to `DEVIN_LOOKBACK_DAYS` days and differenced for more.",
        "auto, direct or differenced",
    )
    devin_log_format: Literal["text", "json"] = _setting(
        "text",
        "What `devin-sessions` prints: sentences, or one JSON object per line with the numbers as fields.",
        "text or json",
    )
    otel_exporter_otlp_endpoint: str | None = _setting(
        None,
        "OpenTelemetry collector that receives the metrics of each load over OTLP/HTTP. Needs the packages of the "
        "extra `otel`, which make installs. Unset: none.",
        "an http:// or https:// address without user and password",
    )
    warehouse_url: str = _setting(
        "duckdb:///data/warehouse.duckdb",
        "The warehouse. A relative path starts in the project's directory.",
        "a DuckDB file as duckdb:///path/to/file.duckdb, a database of MotherDuck as duckdb:///md:name, or one of "
        "PostgreSQL as postgresql+psycopg://user:password@host/database",
    )

    devin_report_path: Path | None = _setting(
        None,
        "File to which the activity report is written; `off` for none. Unset: `published/report.html` next to the "
        "warehouse's file, or in `data/` if the warehouse is on a server.",
        "off, or a path that ends in .html; a relative one starts at the project's folder",
    )
    devin_alert_webhook_url: SecretStr | None = _setting(
        None,
        "Webhook that gets a message when a run fails or a check needs attention, and one when that is resolved. "
        "Unset: none. The address is treated as a secret, like the key.",
        "the https:// address of a webhook that takes Slack's JSON; http:// for this machine alone",
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
            raise ValueError(f"{DISCOVER} stands alone")
        return user_ids

    @field_validator("devin_start_date")
    @classmethod
    def _start_in_the_past(cls, day: date) -> date:
        if day >= datetime.now(UTC).date():
            raise ValueError("no day since then is closed")
        return day

    @field_validator("devin_timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("no such time zone")
        return name

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _collector(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"(?i)https?://[^/?#@\s]+([/?#]\S*)?", url):
            raise ValueError("no such address")
        return url

    @field_validator("warehouse_url")
    @classmethod
    def _usable_warehouse(cls, value: str) -> str:
        try:
            url = sa.make_url(value)
        except sa.exc.ArgumentError:
            raise ValueError("not a database URL") from None
        if url.drivername == "postgresql+psycopg":
            if not url.database:
                raise ValueError("it names no database")
            if {"password", "sslpassword"} & url.query.keys():
                raise ValueError("a password belongs before the @, where nothing shows it")
            if "@" in (url.host or ""):
                raise ValueError("an @ in a password is written %40")
            modes = url.normalized_query.get("sslmode", ())
            if {"disable", "allow", "prefer"} & {*modes} and not is_on_this_machine(url):
                raise ValueError("the password would travel unencrypted: set sslmode to require or verify-full")
            # The password stays in the environment, where Database finds it; nothing that shows a setting shows it.
            return url.render_as_string(hide_password=True)
        if url.drivername != "duckdb" or url.host or not url.database or url.database == ":memory:":
            raise ValueError("neither a DuckDB file nor a PostgreSQL database")
        if url.database.startswith("md:"):
            if url.query or not re.fullmatch(r"md:[A-Za-z0-9_]+", url.database):
                raise ValueError("not the name of a database; the token belongs in the variable MOTHERDUCK_TOKEN")
            return url.render_as_string(hide_password=False)
        try:
            path = PROJECT / Path(url.database).expanduser()
            is_folder = path.is_dir()
        except (OSError, RuntimeError):
            raise ValueError("no such path can be") from None
        if is_folder:
            raise ValueError("this is a folder; name a file in it")
        return url.set(database=str(path)).render_as_string(hide_password=False)

    @field_validator("devin_report_path")
    @classmethod
    def _a_page(cls, path: Path | None) -> Path | None:
        if path not in (None, Path("off")) and (path.suffix != ".html" or (PROJECT / path).is_dir()):
            raise ValueError("not the name of a page")
        return path

    @property
    def published_snapshot(self) -> Path | None:
        """The copy of the warehouse that analysts read, beside it; None if the warehouse is on a server."""
        warehouse = Database(url=self.warehouse_url)
        return warehouse.path.parent / "published" / "devin_sessions.duckdb" if warehouse.is_file else None

    @property
    def published_report(self) -> Path | None:
        """The activity report; None if none is wanted."""
        if self.devin_report_path == Path("off"):
            return None
        if self.devin_report_path:
            return PROJECT / self.devin_report_path
        snapshot = self.published_snapshot
        return (snapshot.parent if snapshot else PROJECT / "data" / "published") / "report.html"

    @property
    def dimensions(self) -> list[Dimension]:
        """Whose sessions are counted."""
        return [dimension for dimension in DIMENSIONS if self._named(dimension) or not dimension.is_extra]

    def chosen(self, dimension: Dimension) -> tuple[str, ...]:
        """The ids of these that the user chose to count; empty means every one that the source lists."""
        ids = self._named(dimension)
        return () if ids == (DISCOVER,) else ids

    def _named(self, dimension: Dimension) -> tuple[str, ...]:
        ids: tuple[str, ...] = getattr(self, dimension.setting.lower())
        return ids

    @property
    def settled_after_days(self) -> int:
        """How many days after its end a day is read for the last time: on the last night of its look-back."""
        return self.devin_lookback_days - 1

    def is_differenced(self, days: int) -> bool:
        """Whether a load of so many days derives what it can, or asks every cell itself."""
        return self.devin_fetch == "differenced" or (self.devin_fetch == "auto" and days > self.devin_lookback_days)

    @classmethod
    def load(cls) -> "Settings":
        """The settings of this process; a `.env` file in the project's folder fills in what the environment lacks.

        Raises SettingsRefused, which names each wrong variable, its value (never a secret) and what is allowed.
        """
        _read_env_file()
        try:
            return cls()
        except ValidationError as error:
            raise SettingsRefused("\n".join(_refusal(e) for e in error.errors())) from None


def says_json() -> bool:
    """Whether DEVIN_LOG_FORMAT is `json`, for what is said even where the settings are refused."""
    _read_env_file()
    return os.environ.get("DEVIN_LOG_FORMAT") == "json"


def exposed_env_file() -> str:
    """What to say if others on this machine can read the file with the key; empty if not."""
    try:
        mode = ENV_FILE.stat().st_mode
    except FileNotFoundError:
        return ""
    if os.name != "posix" or not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return ""
    return f"Other users of this machine can read {ENV_FILE} and the key in it. To change that: chmod 600 {ENV_FILE}"


def _read_env_file() -> None:
    load_dotenv(ENV_FILE, override=False)


def _split(value: object, pattern: str, noun: str) -> object:
    if not isinstance(value, str):
        return value
    ids = [part.strip() for part in value.split(",") if part.strip()]
    for id_ in ids:
        if not re.fullmatch(pattern, id_):
            raise ValueError(f"{id_!r} is not {'an' if noun[0] in 'aeio' else 'a'} {noun} id")
    if not ids:
        raise ValueError(f"no {noun} id in it")
    return tuple(dict.fromkeys(ids))


def allowed(name: str) -> str:
    """Which values the setting of this field may have, in words."""
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["allowed"])


def _refusal(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    value = re.sub(r"(?s)://.*@", "://***@", str(error["input"]))
    value = re.sub(r"(?s)(://[^?]*\?).*", r"\1***", value)[:200]
    shown = "" if name in SECRETS else f"={value!r}"
    why = f" ({error['ctx']['error']})" if error["type"] == "value_error" else ""
    return f"{name.upper()}{shown} is refused{why}. Allowed: {allowed(name)}."
