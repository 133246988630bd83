"""Names of tables and columns in SQL."""


def quoted(name: str) -> str:
    """The name in quotes, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
