"""A warehouse whose file is gone, while what was published from it is still there."""

from pathlib import Path

from pipelines.settings import Settings
from warehouse import parquet

_CHECKSUM_BYTES, _MAGIC = 8, b"DUCK"  # how each DuckDB file begins


def lost_warehouse(settings: Settings) -> str:
    """What to do if the warehouse's file is missing beside its published copies, else an empty string.

    A new warehouse would soon replace them, and with them the last record of when counts changed. Where another one is
    in the same directory, the copies are taken for that one's, and this one for a new one. Raises WarehouseError if
    something else is in the file's place.
    """
    snapshot, database = settings.published_snapshot, settings.warehouse
    if snapshot is None or database.exists():
        return ""
    copies = [path for path in (snapshot, parquet.directory_beside(snapshot)) if path.exists()]
    if not copies or any(_is_another(path, database.path) for path in database.path.parent.iterdir()):
        return ""
    return (
        f"The warehouse {database.path} is missing, but what was published from it is not: {copies[0]}. To put the "
        "warehouse back: devin-sessions restore. To begin a new one instead, first move that copy away: "
        f"{snapshot.parent}"
    )


def _is_another(path: Path, warehouse: Path) -> bool:
    """Whether a file is a DuckDB file, and not what is left of this warehouse, such as a damaged one set aside."""
    if path.name.startswith(f"{warehouse.name}.") or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            file.seek(_CHECKSUM_BYTES)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:  # whatever it is, this job hasn't written it
        return False
