"""Where the warehouse's password and tokens may be sent: to the address in WAREHOUSE_URL alone."""

import os

import sqlalchemy as sa

from resources.addresses import is_loopback
from resources.database_errors import URL_VARIABLE, WarehouseError

HIDDEN = "***"
_TOKENS = ("MOTHERDUCK_TOKEN", "motherduck_token")


def is_on_this_machine(url: sa.URL) -> bool:
    """Whether the server can be reached only through a socket or the loopback interface."""
    if "service" in url.query or os.environ.get("PGSERVICE"):
        return False  # a file says where
    told = url.normalized_query
    hosts = [url.host or "", *told.get("host", ())]
    if not any(hosts):
        hosts = [os.environ.get("PGHOST", "")]
    hosts += told.get("hostaddr") or [os.environ.get("PGHOSTADDR", "")]
    names = ",".join(hosts).split(",")
    return all(not name or name.startswith(("/", "@")) or is_loopback(name) for name in names)


def refuse_secrets(address: str, name: str) -> None:
    """Raise WarehouseError if a secret of the environment, which is for its own server, would be sent to this.

    No caller can release it: it comes from the environment, so its address does too.
    """
    url = sa.make_url(address)
    secret = _secret_for(url)
    if secret is None:
        return
    if url.password == HIDDEN and not os.environ.get(URL_VARIABLE):
        raise WarehouseError(
            f"The password of the warehouse {name} is not known: set {URL_VARIABLE} in the environment of "
            "every process that runs the job."
        )
    raise WarehouseError(
        f"Not connected to {_with_user(address)}: the secret in {secret} is sent to "
        f"{_with_user(os.environ.get(URL_VARIABLE, ''))} alone. If the first is the right warehouse, set "
        f"{URL_VARIABLE} to it, with the same user, server, port, database and options, in the environment of "
        "every process that runs the job."
    )


def is_the_environments(url: sa.URL) -> bool:
    """Whether this is the address in WAREHOUSE_URL: the same in every part but the password.

    The options count too: host, hostaddr, port, service and sslmode say where a password goes, and how safely.
    """
    try:
        # As the settings have it, from where callers have it.
        own = sa.make_url(sa.make_url(os.environ.get(URL_VARIABLE, "")).render_as_string(hide_password=True))
    except sa.exc.ArgumentError:
        return False
    return url.set(password=HIDDEN) == own.set(password=HIDDEN)


def _secret_for(url: sa.URL) -> str | None:
    """Where in the environment the secret is that connecting to this server would send; None if none would be sent."""
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


def _with_user(address: str) -> str:
    """The address without its password and options."""
    try:
        url = sa.make_url(address)
    except sa.exc.ArgumentError:
        return f"the address in {URL_VARIABLE}"
    return sa.URL.create(
        url.drivername, url.username, host=url.host, port=url.port, database=url.database
    ).render_as_string()
