"""Exit codes: 0 all is loaded, 1 something is missing, 2 wrong use or settings, 128 + n ended by signal n."""

import typer

from resources.file_errors import obstacle

MISSING, WRONG_USE = 1, 2


class WrongUse(Exception):
    """The arguments of a command can't be followed. The message says why and what to type instead."""


# By name, so that showing what is wrong with an argument does not wait for imports that take seconds.
CODES = {
    # The same command may succeed later, or after another one.
    "resources.database_errors.WarehouseLocked": MISSING,
    "resources.database_errors.WarehouseLost": MISSING,
    "resources.database_errors.WarehouseDamaged": MISSING,
    "resources.devin_errors.DevinAPIError": MISSING,
    "pipelines.ledger.OlderWarehouse": MISSING,
    "pipelines.command.restore.NotRestored": MISSING,
    "pipelines.command.query.NothingPublished": MISSING,
    "pipelines.command.webserver.CannotServe": MISSING,
    # The user has to change something first.
    "pipelines.command.exit_codes.WrongUse": WRONG_USE,
    "pipelines.command.query_result.QueryRefused": WRONG_USE,
    "pipelines.command.dagster_home.HomeUnusable": WRONG_USE,
    "pipelines.settings.SettingsRefused": WRONG_USE,
    "pipelines.env_files.EnvFileRefused": WRONG_USE,
    "pipelines.home.NoHome": WRONG_USE,
    "pipelines.loading.changed_settings.Incompatible": WRONG_USE,
    "resources.devin_errors.Unauthorized": WRONG_USE,
    "resources.devin_errors.NetworkRefused": WRONG_USE,
    "resources.database_errors.WarehouseError": WRONG_USE,
    "warehouse.migrations.UnfitWarehouse": WRONG_USE,
}
"""The exit code for each error whose message is for the user, by the name of its class; subclasses may have another."""


def exit_code_for(error: Exception) -> int | None:
    """The exit code for an error whose message is for the user; None if it is a defect."""
    if isinstance(error, OSError):
        return WRONG_USE if isinstance(error.filename, str) else None  # without a file, it is about the output
    if isinstance(error, typer.TyperException):
        return WRONG_USE
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((CODES[name] for name in names if name in CODES), None)


def user_message(error: Exception) -> str:
    """The message to show for an error that has an exit code."""
    if isinstance(error, OSError):
        found = obstacle(error)
        return f"Cannot use {error.filename}: {found.why}. {found.fix} and run the same command again."
    return error.format_message() if isinstance(error, typer.TyperException) else str(error)
