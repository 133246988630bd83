"""Where the warehouse's password and tokens may be sent: only to the address in WAREHOUSE_URL."""

import os

import sqlalchemy as sa

from resources.addresses import is_loopback
from resources.database_errors import URL_VARIABLE, WarehouseError

HIDDEN = "***"
_TOKENS = ("MOTHERDUCK_TOKEN", "motherduck_token")


def is_on_this_machine(url: sa.URL) -> bool:
    """Whether the server can only be reached through a socket or the loopback interface."""
    if "service" in url.query or os.environ.get("PGSERVICE"):
        return False  # a file says where
    options = url.normalized_query
    hosts = [url.host or "", *options.get("host", ())]
    if not any(hosts):
        hosts = [os.environ.get("PGHOST", "")]
    hosts += options.get("hostaddr") or [os.environ.get("PGHOSTADDR", "")]
    names = ",".join(hosts).split(",")
    return all(not name or name.startswith(("/", "@")) or is_loopback(name) for name in names)


def refuse_secrets(address: str, name: str) -> None:
    """Raise WarehouseError if a secret in the environment, which is for another server, would be sent to this one.

    No caller can override this: the secret comes from the environment, so its address does too.
    """
    url = sa.make_url(address)
    secret = _secret_sent_to(url)
    if secret is None:
        return
    if url.password == HIDDEN and not os.environ.get(URL_VARIABLE):
        raise WarehouseError(
            f"The password of the warehouse {name} is not known: set {URL_VARIABLE} in the environment of "
            "every process that runs the job."
        )
    raise WarehouseError(
        f"Not connected to {_without_password(address)}: the secret in {secret} is only sent "
        f"to {_without_password(os.environ.get(URL_VARIABLE, ''))}. If the first is the right warehouse, set "
        f"{URL_VARIABLE} to it, with the same user, server, port, database and options, in the environment of "
        "every process that runs the job."
    )


def is_from_environment(url: sa.URL) -> bool:
    """Whether this is the address in WAREHOUSE_URL: the same in every part but the password.

    The options count too: host, hostaddr, port, service and sslmode say where a password goes, and how safely.
    """
    try:
        # Rendered as the settings do, where callers have it from.
        own = sa.make_url(sa.make_url(os.environ.get(URL_VARIABLE, "")).render_as_string(hide_password=True))
    except sa.exc.ArgumentError:
        return False
    return url.set(password=HIDDEN) == own.set(password=HIDDEN)


def with_password(url: sa.URL) -> sa.URL:
    """The address with the password from the environment where it is hidden; see `refuse_secrets`."""
    return url.set(password=sa.make_url(os.environ[URL_VARIABLE]).password) if url.password == HIDDEN else url


def safe_options(url: sa.URL, *, is_own: bool) -> dict[str, str]:
    """Options with which PostgreSQL's driver sends no secret elsewhere; `is_own`: see `is_from_environment`."""
    options = {} if is_own else {"passfile": f"{os.devnull}/none"}  # a line of ~/.pgpass may apply to every host
    if "sslmode" not in url.query and not is_on_this_machine(url):
        options["sslmode"] = "require"  # the driver's own default falls back to no encryption
    return options


def _secret_sent_to(url: sa.URL) -> str | None:
    """The variable or service whose secret connecting to this server would send; None if none would be sent."""
    names: tuple[str, ...]
    if url.drivername == "duckdb":
        names = _TOKENS
    elif url.password == HIDDEN:
        return URL_VARIABLE
    elif "service" in url.query:
        return f"the service {url.query['service']}"
    else:
        names = ("PGSERVICE",) if url.password else ("PGSERVICE", "PGPASSWORD")
    return next((name for name in names if os.environ.get(name)), None)


def _without_password(address: str) -> str:
    """The address without its password and options."""
    try:
        url = sa.make_url(address)
    except sa.exc.ArgumentError:
        return f"the address in {URL_VARIABLE}"
    return sa.URL.create(
        url.drivername, url.username, host=url.host, port=url.port, database=url.database
    ).render_as_string()
