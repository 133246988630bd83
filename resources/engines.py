"""SQLAlchemy engines, kept as long as the process: a new one would compile every statement again."""

import functools
from typing import Any

import sqlalchemy as sa

_AT_ONCE = 64  # more than a process uses: the warehouse and its copies, and the files of Dagster's runs


def engine(url: sa.URL, options: dict[str, Any]) -> sa.Engine:
    """An engine without a pool, which connects with these options of the driver."""
    return _engine(url, _frozen(options))


@functools.lru_cache(_AT_ONCE)
def _engine(url: sa.URL, options: tuple[tuple[str, Any], ...]) -> sa.Engine:
    return sa.create_engine(url, poolclass=sa.NullPool, connect_args=_thawed(options))


def _frozen(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, _frozen(value) if isinstance(value, dict) else value) for name, value in options.items())


def _thawed(options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return {name: _thawed(value) if isinstance(value, tuple) else value for name, value in options}
