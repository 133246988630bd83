"""The Markdown page docs/settings.md, generated from `Settings`. To write it: `make docs`."""

import sys
from pathlib import Path

from pipelines.settings import Settings, allowed

SUBJECTS = {
    "The API": [
        "devin_api_key",
        "devin_api_version",
        "devin_allow_version_change",
        "devin_api_url",
        "devin_window_end",
    ],
    "Who is counted": ["devin_org_ids", "devin_user_ids"],
    "Days and the schedule": [
        "devin_start_date",
        "devin_timezone",
        "devin_day_start_hour",
        "devin_lookback_days",
        "devin_catch_up_days",
        "devin_days_per_run",
    ],
    "Requests to the API": [
        "devin_fetch",
        "devin_list_samples",
        "devin_max_connections",
        "devin_requests_per_minute",
        "devin_timeout_seconds",
        "devin_max_tries",
        "devin_patience_seconds",
    ],
    "Where results go": [
        "devin_home",
        "warehouse_url",
        "devin_schema",
        "devin_lock_patience_seconds",
        "devin_report_path",
        "devin_publish_url",
        "devin_alert_webhook_url",
        "devin_enterprise",
        "devin_asset_prefix",
        "devin_log_format",
        "otel_exporter_otlp_endpoint",
    ],
}
"""Every setting, under the heading where a reader would look for it."""

_PREFACE = """\
# Settings

Every setting is an environment variable; an empty one counts as unset. A value that is not allowed stops the program
before it does anything, with a message that gives the variable and the allowed values. You need to set only
`DEVIN_API_KEY`.

`.env` files fill in what the environment does not set: first the nearest one from the working directory upwards, then
the checkout's, then the one in `DEVIN_HOME`. The nearest one is skipped if it belongs to another user. Dagster's own
commands, such as `dagster asset list` or `dg check defs`, also read a `.env` in the directory in which you type them,
and there the file takes precedence over the environment.

A variable that begins with `DEVIN_` and is none of these has no effect. Commands report it, with the setting that it
may have been meant to be.

A relative path in a setting starts in the checkout; if you set `DEVIN_HOME`, or without a checkout, it starts there.

`make docs` generates this page from `pipelines/settings.py`; do not edit it.
"""

_OTHERS = """
## Variables of Dagster and the libraries

| variable | default | meaning |
|---|---|---|
| `DAGSTER_HOME` | `dagster` in `DEVIN_HOME` | Directory of Dagster's record of runs, as an absolute path. |
| `MOTHERDUCK_TOKEN` | none | Token for a warehouse on MotherDuck. |
| `HTTPS_PROXY`, `ALL_PROXY` | none | Proxy for requests to the API and the webhook: `http://user:password@host:port`. |
| `NO_PROXY` | none | What to reach without the proxy: hosts, `.domains`, address blocks, or `*`, separated by commas. |
| `SSL_CERT_FILE`, `SSL_CERT_DIR` | the machine's | Certificate authorities to trust, instead of those of the machine. |
| `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` | none | The same, if neither of the former is set. |
| `AWS_REGION`, `AWS_ENDPOINT_URL_S3` and others | none | Standard variables of the clouds' clients, for \
[publishing](publishing.md). |
| `OTEL_EXPORTER_OTLP_HEADERS` and others | none | Standard variables of the OpenTelemetry SDK. |
"""


def as_markdown() -> str:
    """The whole page."""
    return _PREFACE + "".join(_section(subject, names) for subject, names in SUBJECTS.items()) + _OTHERS


def _section(subject: str, names: list[str]) -> str:
    rows = [f"\n## {subject}\n", "| variable | default | meaning | allowed |", "|---|---|---|---|"]
    for name in names:
        setting = Settings.model_fields[name]
        default = _format_default(setting.default)
        rows.append(f"| `{name.upper()}` | {default} | {setting.description} | {allowed(name)} |")
    return "\n".join(rows) + "\n"


def _format_default(default: object) -> str:
    if default in (None, (), ""):
        return "none"
    if isinstance(default, bool):
        return f"`{default}`".lower()
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def main() -> None:
    """Write the page to the file given as the argument, or to standard output."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(as_markdown(), encoding="utf-8")
    else:
        sys.stdout.write(as_markdown())


if __name__ == "__main__":
    main()
