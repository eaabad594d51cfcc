"""RocksDB's settings for the durable log, for the process that owns it and for the child that tries it first.

Imports little but rocksdict, so that the child starts at once. Memory is bounded: memory tables of the frames, a
small block cache, few open files, a short information log, no statistics.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, Rdict

SMALL_FAMILIES: Final = ("cursors", "commands", "catalogue", "meta", "gaps", "letters")
BUCKET_PREFIX = "frames-"  # the frames lie in several families; see buckets.py
END_KEY = b"\xff" * 16  # above every key; its entry makes sure that each family has a file of its own
WRITE_BUFFERS_MAX = 3
SMALL_BUFFER_BYTES = 1 << 20
LOG_FILES_BYTES_MAX = 32 << 20  # RocksDB's own log; what must be replayed after a crash
CACHE_BYTES = 4 << 20
BLOCK_BYTES = 16 << 10
OPEN_FILES_MAX = 256  # of rows; and no more than this part of what the process may open:
OPEN_FILES_PART = 4
MANIFEST_PREALLOCATION_BYTES = 64 << 10


def store_options(
    write_buffer_bytes: int, *, create: bool, recovery: DBRecoveryMode | None = None, log_folder: str = ""
) -> Options:
    """Options of the store as a whole.

    recovery    differs only where a damaged store is salvaged
    log_folder  where RocksDB's information log goes when it must not go into the store
    """
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.create_missing_column_families(True)
    # The default mode shortens the log without a word after a flipped bit; this one refuses to open it, and still takes
    # a torn tail.
    options.set_wal_recovery_mode(recovery or DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_max_total_wal_size(min(LOG_FILES_BYTES_MAX, 4 * write_buffer_bytes))
    options.set_max_background_jobs(2)
    options.set_max_open_files(_open_files())
    # Each shard keeps a file at least: with RocksDB's own 64 of them a small bound would be none.
    options.set_table_cache_num_shard_bits(0)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    if log_folder:
        options.set_db_log_dir(log_folder)
    options.set_manifest_preallocation_size(MANIFEST_PREALLOCATION_BYTES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_skip_stats_update_on_db_open(True)
    return options


def _open_files() -> int:
    """Files that RocksDB keeps open; lines, logs and folders need descriptors as well."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES_MAX if allowed < 0 else min(OPEN_FILES_MAX, allowed // OPEN_FILES_PART)


def family_options(path: str, write_buffer_bytes: int, *, is_read_only: bool = False) -> dict[str, Options]:
    """Options of each family that the store at a path has, or will have; raises what rocksdict raises.

    is_read_only  nothing is made: a store of an earlier release is without the families that came later
    """
    cache = Cache(CACHE_BYTES)
    names = set() if is_read_only else set(SMALL_FAMILIES)
    if Path(path, "CURRENT").exists():
        names |= set(Rdict.list_cf(path, Options(raw_mode=True))) - {"default"}
    buffers = {name: write_buffer_bytes for name in names if name.startswith(BUCKET_PREFIX)}
    small = min(write_buffer_bytes, SMALL_BUFFER_BYTES)
    return {name: one_family(buffers.get(name, small), cache, compress=name in buffers) for name in sorted(names)}


def bucket_options(write_buffer_bytes: int) -> Options:
    """Options of a new bucket of frames."""
    return one_family(write_buffer_bytes, Cache(CACHE_BYTES), compress=True)


def one_family(write_buffer_bytes: int, cache: Cache, *, compress: bool) -> Options:
    """Options of one family; rows are compressed, small entries are not worth it."""
    options = Options(raw_mode=True)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX)
    options.set_compression_type(DBCompressionType.lz4() if compress else DBCompressionType.none())
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_block_size(BLOCK_BYTES)
    options.set_block_based_table_factory(blocks)
    return options
