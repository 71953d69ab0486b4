"""The lake: Delta tables on a local directory, one per source, readable by any engine. The only importer of deltalake.

An append carries its application and version as a Delta application transaction, so that a repeated append is seen and
left out. The writer of Delta does not fsync; we do, before anyone forgets where the rows came from.

Each append also keeps its table: small files are merged by tiers, the log of commits is summed up in a checkpoint every
`CHECKPOINT_EVERY` commits, and files that no version of the last `KEEP_HOURS` hours names are removed, so that who
pinned a version has that long to read it.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction

from flyball.ingest.frames import physical
from flyball.ingest.ports import LakeFile
from flyball.kernel.errors import ConflictError, ExhaustedError, NotFoundError, UnavailableError
from flyball.kernel.files import sync_directory
from flyball.kernel.times import show_time
from flyball.storage.tiers import LARGEST, merge_below

COMPACT_AT = 16  # files of the first tier; a flush a minute makes 60 an hour
CHECKPOINT_EVERY = 20  # commits that a reader who opens the table may have to read
KEEP_HOURS = 24  # how long files that were merged or emptied stay for readers of older versions
VACUUM_SECONDS = 3_600.0  # between two looks for files that may go, by process and table
DELETE_FILES = 16  # files that one deletion touches
UNSYNCED = 3  # commits that a writer may leave behind unsynced: each kind of change makes at most two

_OURS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)  # we do both, and fsync
_CONFIGURATION = {
    "delta.dataSkippingNumIndexedCols": "-1",  # our system columns come last, and ranges of them are read
    "delta.logRetentionDuration": f"interval {2 * KEEP_HOURS} hours",
    "delta.deletedFileRetentionDuration": f"interval {2 * KEEP_HOURS} hours",
}


class DeltaLake:
    """`LakeTables` in a folder. One writer per table; readers in any process, at any time."""

    def __init__(
        self,
        folder: Path,
        *,
        compact_at: int = COMPACT_AT,
        keep_hours: int = KEEP_HOURS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._compact_at = compact_at
        self._keep_hours = keep_hours
        self._monotonic = monotonic
        self._vacuumed: dict[str, float] = {}
        self._tables: dict[str, DeltaTable] = {}
        self._durable: dict[str, int] = {}  # the version through which each table is known to be on the disk
        self._lock = threading.RLock()

    def table_path(self, table: str) -> Path:
        """Where the table lies, for other engines."""
        if not table or "/" in table or table.startswith("."):
            raise NotFoundError(f"{table!r} is not the name of a table", code="table_not_found")
        return self._folder / table

    def tables(self) -> list[str]:
        """The names of all tables."""
        if not self._folder.exists():
            return []
        return sorted(path.name for path in self._folder.iterdir() if (path / "_delta_log").is_dir())

    # --- writing

    def append(self, table: str, frame: pl.DataFrame, *, app_id: str, version: int) -> bool:
        with self._lock, _translated(table):
            self.sync(table)  # whoever committed last may have died before it was on the disk
            if self.version(table, app_id) >= version:
                return False
            current = self._open(table)
            frame = _fitted(frame, self.types(table), table)
            write_deltalake(
                str(self.table_path(table)) if current is None else current,
                frame,
                mode="append",
                schema_mode=None if current is None else "merge",
                configuration=_CONFIGURATION if current is None else None,
                commit_properties=CommitProperties(app_transactions=[Transaction(app_id, version, None)]),
                post_commithook_properties=_OURS,
            )
            self._sync(table)
            self._keep(table)
            return True

    def append_files(self, table: str, files: Sequence[LakeFile], *, app_id: str, version: int) -> bool:
        with self._lock, _translated(table):
            current = self._open(table) or self._create(table, files[0])
            if not all(self._takes(table, file) for file in files):
                rows = pl.concat([pl.read_parquet(file.path) for file in files], how="diagonal")
                return self.append(table, rows, app_id=app_id, version=version)
            self.sync(table)
            if self.version(table, app_id) >= version:
                return False
            current.create_write_transaction(
                [self._adopt(table, file) for file in files],
                "append",
                current.schema(),
                commit_properties=CommitProperties(app_transactions=[Transaction(app_id, version, None)]),
                post_commithook_properties=_OURS,
            )
            self._sync(table)
            self._keep(table)
            return True

    def _adopt(self, table: str, file: LakeFile) -> AddAction:
        """Make a file one of the table's own, and give what names it in a commit."""
        name = f"part-{uuid4()}.parquet"
        _link(file.path, self.table_path(table) / name)
        return AddAction(
            path=name,
            size=file.path.stat().st_size,
            partition_values={},
            modification_time=time.time_ns() // 1_000_000,
            data_change=True,
            stats=file.stats,
        )

    def sync(self, table: str) -> None:
        with self._lock, _translated(table):
            if self._open(table) is not None:
                self._sync(table)

    def _create(self, table: str, file: LakeFile) -> DeltaTable:
        """A table without rows for files such as this."""
        write_deltalake(
            str(self.table_path(table)),
            pl.DataFrame(schema=pl.read_parquet_schema(file.path)),
            configuration=_CONFIGURATION,
            post_commithook_properties=_OURS,
        )
        self._sync(table)
        return self._require(table)

    def _takes(self, table: str, file: LakeFile) -> bool:
        """Whether the table has all of the file's columns, with their types."""
        there = self.types(table)
        return all(there.get(name) == dtype for name, dtype in pl.read_parquet_schema(file.path).items())

    def compact(self, table: str, *, below: int = LARGEST) -> int:
        """Merge the files below a size; how many went. They stay on the disk for readers of older versions."""
        with self._lock, _translated(table):
            current = self._require(table)
            done = current.optimize.compact(target_size=below, post_commithook_properties=_OURS)
            self._sync(table)
            return int(done["numFilesRemoved"])

    def delete_before(self, table: str, column: str, before: int) -> int:
        """Delete rows whose time in `column` is before a time in µs, of the oldest files first; how many rows went.

        One call touches a bounded number of files: call again until nothing goes. Idempotent. Files without such rows
        are not read, and one that holds only such rows is dropped whole.
        """
        with self._lock, _translated(table):
            current = self._open(table)
            if current is None:
                return 0
            oldest = sorted(value for value in self._oldest(current, column) if value < before)
            if not oldest:
                return 0
            if len(oldest) > DELETE_FILES and oldest[DELETE_FILES] > oldest[0]:
                before = oldest[DELETE_FILES]
            done = current.delete(f"{column} < '{show_time(before)}'", post_commithook_properties=_OURS)
            self._sync(table)
            return int(done["num_deleted_rows"])

    def oldest(self, table: str, column: str) -> int | None:
        """The least time in a column, µs, from the statistics of the files; None: there is none."""
        with self._lock, _translated(table):
            current = self._open(table)
            return None if current is None else min(self._oldest(current, column), default=None)

    def vacuum(self, table: str) -> int:
        """Remove data files that no version of the last hours names, and the entries of such versions; how many files.

        Idempotent: a removal that was cut off is finished by the next.
        """
        with self._lock, _translated(table):
            current = self._require(table)
            gone = current.vacuum(self._keep_hours, dry_run=True, enforce_retention_duration=False)
            if gone:
                current.vacuum(
                    self._keep_hours,
                    dry_run=False,
                    enforce_retention_duration=False,
                    post_commithook_properties=_OURS,
                )
                self._sync(table)
            current.cleanup_metadata()
            return len(gone)

    def _oldest(self, current: DeltaTable, column: str) -> list[int]:
        """Of each file the least time in a column, µs."""
        actions = pl.DataFrame(current.get_add_actions(flatten=True))
        name = f"min.{column}"
        if name not in actions.columns:
            return []
        least: list[int] = actions[name].cast(pl.Datetime("us")).cast(pl.Int64).drop_nulls().to_list()
        return least

    def _keep(self, table: str) -> None:
        """After an append: what the table needs so that it stays cheap to open, to read and to hold."""
        current = self._require(table)
        sizes = current.get_add_actions(flatten=True).column("size_bytes").to_pylist()
        below = merge_below(list(sizes), small=self._compact_at)
        if below is not None:
            self.compact(table, below=below)
        now = self._monotonic()
        if now - self._vacuumed.get(table, -VACUUM_SECONDS) >= VACUUM_SECONDS:
            self._vacuumed[table] = now
            self.vacuum(table)  # before the checkpoint, which forgets what was removed long ago
        if current.version() - self._checkpoint(table) >= CHECKPOINT_EVERY:
            self._make_checkpoint(table)

    def _checkpoint(self, table: str) -> int:
        """The version of the newest checkpoint, whichever process made it; -1: there is none."""
        try:
            pointer = json.loads((self.table_path(table) / "_delta_log" / "_last_checkpoint").read_bytes())
            return int(pointer["version"])
        except (FileNotFoundError, ValueError, KeyError):  # none yet, or one that was cut off
            return -1

    def _make_checkpoint(self, table: str) -> None:
        """Sum the commits up in one file, on the disk before any commit that it stands for may be cleaned up."""
        current = self._require(table)
        current.create_checkpoint()
        log = self.table_path(table) / "_delta_log"
        for name in (f"{current.version():020}.checkpoint.parquet", "_last_checkpoint"):
            _sync_file(log / name)
        sync_directory(log)

    def _sync(self, table: str) -> None:
        """Make commits durable that are not known to be: their files, their entries, and their directories.

        A writer syncs each commit before the next, so of those of an earlier process the newest few are enough. What
        was cleaned up since then needs no sync: a commit that a checkpoint stands for, a file that was merged.
        """
        current = self._require(table)
        newest = current.version()
        since = self._durable.get(table, max(newest - UNSYNCED, -1))
        if since >= newest:
            return
        checkpoint = self._checkpoint(table)
        folder = self.table_path(table)
        log = folder / "_delta_log"
        for version in range(since + 1, newest + 1):
            commit = log / f"{version:020}.json"
            if version < checkpoint and not commit.exists():
                continue
            for added in _added(commit):
                if (folder / added).exists() or added in current.get_add_actions().column("path").to_pylist():
                    _sync_file(folder / added)
            _sync_file(commit)
        for directory in (folder, log, folder.parent) if since < 0 else (folder, log):
            sync_directory(directory)
        self._durable[table] = newest

    # --- reading

    def version(self, table: str, app_id: str) -> int:
        with self._lock, _translated(table):
            current = self._open(table)
            return 0 if current is None else int(current.transaction_version(app_id) or 0)

    def scan(self, table: str) -> pl.LazyFrame:
        """The table as people read it, lazily. Raises `NotFoundError` (`table_not_found`)."""
        with self._lock, _translated(table):
            return pl.scan_delta(self._require(table))

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        *,
        after_lsn: int | None = None,
        through_lsn: int | None = None,
    ) -> pl.DataFrame:
        scan = self.scan(table)
        types = self.types(table)
        names = list(types) if columns is None else list(columns)
        unknown = [name for name in names if name not in types]
        if unknown:
            raise NotFoundError(f"table {table} has no column {unknown[0]!r}", code="column_not_found")
        if "_lsn" in types:
            scan = scan.filter(pl.col("_lsn") > after_lsn) if after_lsn is not None else scan
            scan = scan.filter(pl.col("_lsn") <= through_lsn) if through_lsn is not None else scan
            scan = scan.sort("_lsn")
        with _translated(table):
            return scan.select(physical(name, types[name]) for name in names).collect()

    def types(self, table: str) -> dict[str, pl.DataType]:
        with self._lock, _translated(table):
            current = self._open(table)
            return {} if current is None else dict(pl.scan_delta(current).collect_schema())

    def count(self, table: str) -> int:
        with self._lock, _translated(table):
            current = self._open(table)
            return 0 if current is None else int(current.count())

    def table_version(self, table: str) -> int:
        """The version of the table as Delta counts it, for others to read the same rows; -1: there is no table."""
        with self._lock, _translated(table):
            current = self._open(table)
            return -1 if current is None else current.version()

    def files(self, table: str) -> int:
        """How many data files the table's newest version has."""
        return len(self._require(table).file_uris())

    def _open(self, table: str) -> DeltaTable | None:
        """The newest state of a table; None: there is none yet."""
        path = self.table_path(table)
        known = self._tables.get(table)
        if known is not None:
            known.update_incremental()
            return known
        if not (path / "_delta_log").is_dir():
            return None
        try:
            self._tables[table] = DeltaTable(str(path))
        except TableNotFoundError:  # the folder was made, the first commit was not
            return None
        return self._tables[table]

    def _require(self, table: str) -> DeltaTable:
        current = self._open(table)
        if current is None:
            raise NotFoundError(
                f"the lake has no table {table!r}",
                code="table_not_found",
                hint=f"it has {', '.join(self.tables()) or 'none yet'}",
            )
        return current


def _fitted(frame: pl.DataFrame, types: dict[str, pl.DataType], table: str) -> pl.DataFrame:
    """The frame with a null column taking the table's type; another type than the table's is refused."""
    for name, dtype in frame.schema.items():
        there = types.get(name, dtype)
        if dtype == pl.Null:
            frame = frame.with_columns(pl.col(name).cast(there if there != pl.Null else pl.String))
        elif dtype != there:
            raise ConflictError(
                f"column {name!r} of table {table} is {there}, and rows with {dtype} came",
                code="table_type_changed",
                hint="give the column with the new type another name",
            )
    return frame


def _added(commit: Path) -> list[str]:
    """The paths of the files that a commit adds, from the table's folder."""
    actions = (json.loads(line) for line in commit.read_text().splitlines())
    return [action["add"]["path"] for action in actions if "add" in action]


def _link(path: Path, to: Path) -> None:
    """A second name for a file; a copy where the file system has none, or the two lie on different ones."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _translated(table: str) -> Iterator[None]:
    try:
        yield
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        if "No space left" in str(error) or "quota" in str(error).lower():
            raise ExhaustedError(
                f"the disk that holds table {table} of the lake is full; its rows are still in the event log",
                code="disk_full",
                hint="free some space; the next flush goes on where this one stopped",
            ) from error
        raise UnavailableError(f"table {table} of the lake cannot be used: {error}", code="lake_unavailable") from error
