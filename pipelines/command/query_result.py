"""What a query returns, whichever database ran it: values exactly as they are stored, in text, JSON or Arrow."""

import json
import re
from collections.abc import Generator, Sequence
from typing import Literal, NoReturn, Protocol

import pyarrow as pa

Kind = Literal["integer", "number", "other"]
"""Whole numbers of limited size, all other numbers, and what is no number."""

ROWS_PER_FETCH = 1_000
ROWS_PER_BATCH = 10_000


class QueryRefused(Exception):
    """The query was not run, or not to its end. The message says why and what to do."""


class QueryResult(Protocol):
    """The columns' names and kinds, and the rows in one of three forms, fetched as they are iterated over.

    Close what is iterated over before the transaction ends; otherwise the database computes the rest.
    """

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def kinds(self) -> Sequence[Kind]: ...

    def texts(self) -> Generator[Sequence[str | None]]:
        """Each value as the database prints it; NULL as None."""

    def json(self) -> Generator[Sequence[str]]:
        """Each value as JSON. Numbers have all their digits; what JSON lacks is the text that the database prints."""

    def batches(self) -> Generator[pa.RecordBatch]:
        """At least one batch, all of one schema, with types that Parquet has; what it lacks is text.

        Raises WrongUse for a value that does not fit its column's type.
        """


ONE_STATEMENT = "This is more than one SQL statement. Give one, whose rows are the result."
NO_ROWS = "This SQL returns no result. Use a statement that does, such as select."

_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def json_number(text: str) -> str:
    """A number that a database prints, with all its digits; a string if JSON lacks it, such as infinity."""
    number = re.sub(r"^(-?)\.", r"\g<1>0.", text)
    return number if _JSON_NUMBER.fullmatch(number) else json_string(text)


def json_string(text: str) -> str:
    """The text as JSON."""
    return json.dumps(text, ensure_ascii=False)


def json_document(text: str) -> str:
    """A value of the database's type JSON, on one line; a string if it is JSON to the database alone, such as NaN."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json_string(text)
    return re.sub(r"[\r\n]+", " ", text)  # within a string, JSON has a line break only as an escape


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
