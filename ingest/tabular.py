"""Reading CSV, zipped CSV and Parquet in batches, as the source's own columns."""

import codecs
import csv
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ingest import books
from ingest.kind import Kind
from ingest.market_kinds import AGGREGATE_ID_NAMES
from ingest.replay import is_changes, replay
from ingest.validation import Checked, Origin, UnknownLayoutError, check, reject

SUFFIXES = (".csv", ".zip", ".parquet")
# What reading a damaged file raises.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, pa.ArrowInvalid, OSError)
_BLOCK_BYTES = 16_000_000
_BATCH_BYTES = 64_000_000


@dataclass(frozen=True)
class Part:
    """A batch of a file: its rows, and the lines that do not have the file's columns."""

    table: pa.Table
    unreadable: tuple[str, ...] = ()


def first_fields(path: Path) -> list[str]:
    """Return a CSV's first line, split at the commas, or a Parquet file's column names."""
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_schema(path).names)
    with _opened(path) as stream:
        return _split(stream.readline())


def column_names(path: Path, kind: Kind) -> list[str]:
    """Return the column names of a file that should hold a kind.

    A CSV without a header has the names of the exchange's own layout of as many columns.

    Raises
    ------
    UnknownLayoutError
        If there is no header and the exchange has no such layout.
    """
    fields = first_fields(path)
    if path.suffix == ".parquet" or is_header(fields):
        return fields
    layouts = [names for names in kind.headerless if len(names) == len(fields)]
    if len(layouts) > 1:
        is_aggregate = fields[5].lower() not in ("true", "false")
        layouts = [names for names in layouts if (names[0] in AGGREGATE_ID_NAMES) == is_aggregate]
    if not layouts:
        expected = "; ".join(", ".join(names) for names in kind.headerless) or "a header"
        raise UnknownLayoutError(
            f"{path.name} has no header and {len(fields)} columns ({', '.join(fields)}); "
            f"{kind.name} without a header are expected as {expected}"
        )
    return list(layouts[0])


def is_header(fields: list[str]) -> bool:
    """Return whether a CSV's first line names columns: values start with a digit or a sign."""
    return fields[0][:1].isalpha() or fields[0][:1] == "_"


def read(path: Path, kind: Kind, origin: Origin) -> Iterator[Checked]:
    """Yield a file's rows, checked, in batches of bounded size; at least one, maybe empty.

    Raises
    ------
    UnknownLayoutError
        If the file's columns are not those of the kind.
    zipfile.BadZipFile, zlib.error, EOFError, pyarrow.ArrowInvalid, OSError
        If the file is damaged.
    """
    if kind.name == "trades":
        names = column_names(path, kind)
        is_aggregate = any(name in names for name in AGGREGATE_ID_NAMES)
        constants = (*origin.constants, ("is_aggregate", is_aggregate))
        origin = replace(origin, constants=constants)
    symbol = dict(origin.constants).get("symbol")
    for part in _parts(path, kind, str(symbol)):
        table = part.table
        if books.is_long(table.column_names):
            table = books.from_levels(table)
        checked = check(kind, table, origin)
        if part.unreadable:
            rejects = reject(kind, part.unreadable, "the line has other columns", origin)
            checked = Checked(checked.rows, pa.concat_tables([checked.rejects, rejects]))
        yield checked


def _parts(path: Path, kind: Kind, symbol: str) -> Iterator[Part]:
    if kind.name == "books" and is_changes(first_fields(path)):
        yield Part(replay(path, symbol))
    elif path.suffix == ".parquet":
        yield from _read_parquet(path)
    else:
        yield from _read_csv(path, column_names(path, kind))


def _read_parquet(path: Path) -> Iterator[Part]:
    with pyarrow.parquet.ParquetFile(path) as file:
        metadata = file.metadata
        groups = range(metadata.num_row_groups)
        size = sum(metadata.row_group(group).total_byte_size for group in groups)
        rows = max(1, int(_BATCH_BYTES / max(1.0, size / max(1, metadata.num_rows))))
        for batch in file.iter_batches(batch_size=min(rows, 250_000)):
            yield Part(pa.Table.from_batches([batch]))


def _read_csv(path: Path, names: list[str]) -> Iterator[Part]:
    with _opened(path) as stream:
        has_header = is_header(_split(stream.readline()))
    empty = pa.table({name: pa.array([], pa.string()) for name in names})
    with _opened(path) as stream:
        if has_header:
            stream.readline()
        for block in _whole_lines(stream):
            yield _parsed(block, empty)


def _whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a file in blocks that end with a line; at least one, maybe empty."""
    torn = b""
    while block := stream.read(_BLOCK_BYTES):
        lines, separator, torn = (torn + block).rpartition(b"\n")
        if separator:
            yield lines
    yield torn


def _parsed(block: bytes, empty: pa.Table) -> Part:
    """Split lines into columns. A line is a row: a quote that is left open spoils no other."""
    plain, quoted = block, []
    if b'"' in block:
        lines = block.removeprefix(codecs.BOM_UTF8).splitlines()
        plain = b"\n".join(line for line in lines if b'"' not in line)
        quoted = [line.decode(errors="replace") for line in lines if b'"' in line]
    rows, unreadable = _unquoted(quoted, len(empty.column_names))

    def keep(row: pyarrow.csv.InvalidRow) -> str:
        unreadable.append(row.text)
        return "skip"

    columns = zip(*rows, strict=True) if rows else [()] * len(empty.column_names)
    tables = [pa.table([pa.array(column, pa.string()) for column in columns], empty.schema)]
    if plain.strip():
        tables.append(
            pyarrow.csv.read_csv(
                pa.BufferReader(plain),
                read_options=pyarrow.csv.ReadOptions(
                    column_names=empty.column_names,
                    block_size=2 * _BLOCK_BYTES,
                    use_threads=False,
                ),
                parse_options=pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=keep),
                convert_options=pyarrow.csv.ConvertOptions(column_types=empty.schema),
            )
        )
    return Part(pa.concat_tables(tables), tuple(unreadable))


def _unquoted(lines: list[str], width: int) -> tuple[list[list[str]], list[str]]:
    rows, unreadable = [], []
    for line in lines:
        try:
            (fields,) = csv.reader([line], strict=True)
        except csv.Error:
            fields = []
        if len(fields) == width:
            rows.append(fields)
        else:
            unreadable.append(line)
    return rows, unreadable


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix != ".zip":
        with path.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".csv")]
        if len(members) != 1:
            raise UnknownLayoutError(
                f"{path.name} holds {archive.namelist()}: expected exactly one .csv file"
            )
        with archive.open(members[0]) as stream:
            yield stream


def _split(line: bytes) -> list[str]:
    text = line.decode("utf-8-sig", errors="replace").strip()
    return [field.strip().strip('"') for field in text.split(",")]
