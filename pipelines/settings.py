"""Every environment variable of this project: type, default, one line of meaning, and what is allowed.

Nothing else reads the environment, but for the key: `resources.devin_api` takes it from there itself, so that no
object of Dagster's ever holds it.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import sqlalchemy as sa
from dotenv import load_dotenv
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resources.devin_api import check_key, check_url

PROJECT = Path(__file__).resolve().parents[1]
"""The project's folder: relative paths in settings start here, whatever the working directory is."""


class SettingsRefused(ValueError):
    """One or more settings have a value that is not allowed. The message is for the user, a line each."""


def _setting(default: Any, description: str, allowed: str, **constraints: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **constraints)


class Settings(BaseSettings):
    """The settings of one process, read from the environment. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, validate_default=True)

    devin_api_key: SecretStr | None = _setting(
        None,
        "Personal key of an Enterprise admin. Sent in the request's header and kept nowhere.",
        "a key that starts with `apk_user_` (v2 refuses `apk_` and `cog_` keys)",
    )
    devin_api_url: str = _setting(
        "https://api.devin.ai",
        "Where the source is.",
        "an https:// address; http:// for this machine alone (127.0.0.1, ::1, localhost)",
    )
    devin_org_ids: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Organizations to count. Unset: every organization that the source lists.",
        "organization ids separated by commas, each of letters, digits, `-` and `_`, up to 128",
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
        "Hour at which a day begins. 8 with UTC is Devin's billing day.",
        "a whole number from 0 to 23",
        ge=0,
        le=23,
    )
    devin_lookback_days: int = _setting(
        3,
        "How many closed days each scheduled run reads again.",
        "a whole number from 1 to 90",
        ge=1,
        le=90,
    )
    devin_max_connections: int = _setting(
        16,
        "How many questions may be under way at once.",
        "a whole number from 1 to 256",
        ge=1,
        le=256,
    )
    devin_requests_per_minute: int | None = _setting(
        None,
        "How many questions a minute are asked at most, spread evenly. Unset: as many as the source puts up with.",
        "a whole number from 1 to 1000000",
        ge=1,
        le=1_000_000,
    )
    devin_timeout_seconds: float = _setting(
        30.0,
        "How long one try may take, from connecting to the last byte.",
        "a number of seconds above 0, up to 600",
        gt=0,
        le=600,
    )
    devin_max_tries: int = _setting(
        5,
        "How often one question is tried in all before it counts as unanswered.",
        "a whole number from 1 to 20",
        ge=1,
        le=20,
    )
    devin_fetch: Literal["auto", "direct", "differenced"] = _setting(
        "auto",
        "How counts are asked: `direct` asks every organization and day, `differenced` derives most from totals, "
        "`auto` is direct up to the look-back and differenced beyond it.",
        "auto, direct or differenced",
    )
    warehouse_url: str = _setting(
        "duckdb:///data/warehouse.duckdb",
        "The warehouse. A relative path starts at the project's folder.",
        "a DuckDB file as duckdb:///path/to/file.duckdb",
    )

    @field_validator("devin_api_key")
    @classmethod
    def _usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        stripped = key.get_secret_value().strip() if key else ""
        return SecretStr(check_key(stripped)) if stripped else None

    @field_validator("devin_api_url")
    @classmethod
    def _safe_url(cls, url: str) -> str:
        return check_url(url)

    @field_validator("devin_org_ids", mode="before")
    @classmethod
    def _split_org_ids(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        org_ids = [part.strip() for part in value.split(",") if part.strip()]
        for org_id in org_ids:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", org_id):
                raise ValueError(f"{org_id!r} is not an organization id")
        if not org_ids:
            raise ValueError("no organization id in it")
        return tuple(dict.fromkeys(org_ids))

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

    @field_validator("warehouse_url")
    @classmethod
    def _usable_warehouse(cls, value: str) -> str:
        try:
            url = sa.make_url(value)
        except sa.exc.ArgumentError:
            raise ValueError("not a database URL") from None
        if url.drivername != "duckdb" or url.host or not url.database or url.database == ":memory:":
            raise ValueError("not a DuckDB file")
        try:
            path = PROJECT / Path(url.database).expanduser()
            is_folder = path.is_dir()
        except (OSError, RuntimeError):
            raise ValueError("no such path can be") from None
        if is_folder:
            raise ValueError("this is a folder; name a file in it")
        return url.set(database=str(path)).render_as_string(hide_password=False)

    def is_differenced(self, days: int) -> bool:
        """Whether a load of so many days derives what it can, or asks every cell itself."""
        return self.devin_fetch == "differenced" or (self.devin_fetch == "auto" and days > self.devin_lookback_days)

    @classmethod
    def load(cls) -> "Settings":
        """The settings of this process; a `.env` file in the project's folder fills in what the environment lacks.

        Raises SettingsRefused, which names each wrong variable, its value (never the key) and what is allowed.
        """
        load_dotenv(PROJECT / ".env", override=False)
        try:
            return cls()
        except ValidationError as error:
            raise SettingsRefused("\n".join(_refusal(e) for e in error.errors())) from None

    @classmethod
    def table(cls) -> str:
        """The settings as a Markdown table, for the README."""
        rows = ["| variable | default | meaning | allowed |", "|---|---|---|---|"]
        for name, field in cls.model_fields.items():
            default = "none" if field.default in (None, ()) else f"`{field.default}`"
            rows.append(f"| `{name.upper()}` | {default} | {field.description} | {_allowed(name)} |")
        return "\n".join(rows)


def _allowed(name: str) -> str:
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["allowed"])


def _refusal(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    value = re.sub(r"(?s)://.*@", "://***@", str(error["input"]))
    value = re.sub(r"(?s)(://[^?]*\?).*", r"\1***", value)[:200]
    shown = "" if name == "devin_api_key" else f"={value!r}"
    why = f" ({error['ctx']['error']})" if error["type"] == "value_error" else ""
    return f"{name.upper()}{shown} is refused{why}. Allowed: {_allowed(name)}."
