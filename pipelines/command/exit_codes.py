"""Exit codes: 0 all is loaded, 1 something is missing, 2 wrong use or settings, 128 + n ended by signal n."""

import typer

from pipelines.command.dagster_home import HomeUnusable
from pipelines.command.restore import NotRestored
from pipelines.env_files import EnvFileRefused
from pipelines.home import NoHome
from pipelines.ledger import OlderWarehouse
from pipelines.loading.changed_settings import Incompatible
from pipelines.settings import SettingsRefused
from resources.database_errors import WarehouseDamaged, WarehouseError, WarehouseLocked, WarehouseLost
from resources.devin_errors import NetworkRefused, Unauthorized
from resources.file_errors import obstacle
from warehouse.migrations import UnfitWarehouse

MISSING, WRONG_USE = 1, 2

_CODES: dict[type[Exception], int] = {
    # The same command may succeed later, or after another one.
    WarehouseLocked: MISSING,
    WarehouseLost: MISSING,
    WarehouseDamaged: MISSING,
    OlderWarehouse: MISSING,
    NotRestored: MISSING,
    # The user has to change something first.
    SettingsRefused: WRONG_USE,
    Incompatible: WRONG_USE,
    Unauthorized: WRONG_USE,
    NetworkRefused: WRONG_USE,
    UnfitWarehouse: WRONG_USE,
    NoHome: WRONG_USE,
    EnvFileRefused: WRONG_USE,
    HomeUnusable: WRONG_USE,
    WarehouseError: WRONG_USE,
    typer.TyperException: WRONG_USE,
}


def exit_code_for(error: Exception) -> int | None:
    """The exit code for an error whose message is for the user; None if it is a defect."""
    if isinstance(error, OSError):
        return WRONG_USE if isinstance(error.filename, str) else None  # without a file, it is about the output
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)


def user_message(error: Exception) -> str:
    """The message to show for an error that has an exit code."""
    if isinstance(error, OSError):
        found = obstacle(error)
        return f"Cannot use {error.filename}: {found.why}. {found.fix} and run the same command again."
    return error.format_message() if isinstance(error, typer.TyperException) else str(error)
