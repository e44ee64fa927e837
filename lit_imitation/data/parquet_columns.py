"""Columns of parquet files, read by row group when they are sliced."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_imitation.data.columns import Array
from lit_imitation.errors import DemonstrationError, require
from lit_imitation.utils.integrity import check_size


class ParquetFile:
    """A parquet file of plausible size; it is opened for each read, because a dataset may have thousands of files.

    Args:
        source: Name of the source in messages.
        path: The file.
        keep: Keep the last row groups of each column in memory, for files of many episodes.

    Raises:
        DemonstrationError: The file declares more than it can hold.
    """

    def __init__(self, source: str, path: Path, keep: bool = False) -> None:
        self.source, self.path, self.keep = source, path, keep
        self.parquet = require("pyarrow.parquet", "lerobot", source)
        with self.parquet.ParquetFile(path) as file:
            self.metadata, self.schema = file.metadata, file.schema_arrow
        groups = [self.metadata.row_group(index) for index in range(self.metadata.num_row_groups)]
        check_size(sum(group.total_byte_size for group in groups), path, "its content", DemonstrationError)
        # Repeated values are stored once, so that their number says more than their size.
        values = sum(group.column(number).num_values for group in groups for number in range(group.num_columns))
        check_size(8 * values, path, f"its {values:,} values", DemonstrationError)
        self.starts: list[int] = [0, *itertools.accumulate(group.num_rows for group in groups)]
        """First row of each row group, and the number of rows."""
        self.chunks: tuple[int] = (max((b - a for a, b in itertools.pairwise(self.starts)), default=1),)
        """Number of rows of the largest row group."""
        self.names: list[str] = list(self.schema.names)
        self._kept: dict[tuple[str, ...], tuple[list[int], Any]] = {}

    def read(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> Any:
        """Table of these columns and rows; only their row groups are read."""
        stop = self.starts[-1] if stop is None else stop
        chosen = [i for i in range(len(self.starts) - 1) if self.starts[i] < stop and self.starts[i + 1] > start]
        if not chosen:
            return self.schema.empty_table().select(list(names))
        groups, table = self._kept.get(tuple(names), ([], None))
        if groups != chosen:
            with self.parquet.ParquetFile(self.path, metadata=self.metadata) as file:
                table = file.read_row_groups(chosen, columns=list(names)).select(list(names))
            if self.keep:
                self._kept[tuple(names)] = (chosen, table)
        return table.slice(start - self.starts[chosen[0]], stop - start)


class ParquetColumn:
    """Numbers, or lists of equal lengths, in one column of a parquet file.

    Args:
        table: The file.
        key: Name of the column.
        dtype: Type of its numbers.
        inner: Shape of a row.
    """

    def __init__(self, table: ParquetFile, key: str, dtype: np.dtype[Any], inner: tuple[int, ...]) -> None:
        self.table, self.key, self.dtype, self.inner = table, key, dtype, inner
        if key not in table.names:
            raise DemonstrationError(f"{table.source}: {table.path} has no column '{key}'")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `[N, ...]`."""
        return (self.table.starts[-1], *self.inner)

    @property
    def chunks(self) -> tuple[int]:
        """Number of rows of the largest row group."""
        return self.table.chunks

    def __getitem__(self, rows: slice) -> Array:
        """Read these rows."""
        start, stop, step = rows.indices(self.table.starts[-1])
        column = self.table.read([self.key], start, max(start, stop)).column(0).combine_chunks()
        place = f"{self.table.source}: {self.table.path}, '{self.key}'"
        found = dense(place, column) if len(column) else np.zeros((0, *self.inner))
        if found.size != len(found) * math.prod(self.inner):
            raise DemonstrationError(
                f"{place} has rows of shape {list(found.shape[1:])}, but meta/info.json says {list(self.inner)}"
            )
        return found.reshape(len(found), *self.inner)[::step].astype(self.dtype, copy=False)


def dense(place: str, column: Any) -> Array:
    """Arrow numbers, or lists of equal lengths nested to any depth, as `[N, ...]`.

    Raises:
        DemonstrationError: A row is null or has another length than the first, or a value is no number.
    """
    import pyarrow

    column = getattr(column, "storage", column)
    if isinstance(column, pyarrow.ChunkedArray):
        column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
    if column.null_count:
        row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise DemonstrationError(f"{place}, row {row} is empty (null)")
    kind = column.type
    if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)):
        numbers = np.asarray(column.to_numpy(zero_copy_only=False))
        if numbers.dtype.kind not in "biuf":
            raise DemonstrationError(f"{place} holds {kind}; numbers are needed")
        return numbers
    if not len(column):
        return np.zeros((0, kind.list_size if pyarrow.types.is_fixed_size_list(kind) else 0))
    widths = column.value_lengths().to_numpy(zero_copy_only=False)
    if (widths != widths[0]).any():
        row = int((widths != widths[0]).argmax())
        raise DemonstrationError(f"{place}, row {row} overall has {widths[row]} columns, the first row has {widths[0]}")
    inner = dense(place, column.flatten())
    return inner.reshape(len(widths), int(widths[0]), *inner.shape[1:])


class EncodedImages:
    """PNG or JPEG images in a column of structs `{bytes, path}`, decoded when they are sliced; a path is never opened.

    Args:
        table: The file.
        key: Name of the column.
        image: `(height, width, channels)` of each image.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, table: ParquetFile, key: str, image: tuple[int, int, int]) -> None:
        self.table, self.key, self.image = table, key, image

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `[N, height, width, channels]`."""
        return (self.table.starts[-1], *self.image)

    @property
    def chunks(self) -> tuple[int]:
        """Number of rows of the largest row group."""
        return self.table.chunks

    def __getitem__(self, rows: slice) -> Array:
        """Decode these rows to `[n, height, width, channels]` uint8."""
        start, stop, step = rows.indices(self.table.starts[-1])
        column = self.table.read([self.key], start, max(start, stop)).column(0)
        frames = [self._decode(held, start + number) for number, held in enumerate(column.to_pylist())]
        return np.stack(frames)[::step] if frames else np.zeros((0, *self.image), np.uint8)

    def _decode(self, held: Any, row: int) -> Array:
        place = f"{self.table.source}: {self.table.path}, '{self.key}', row {row}"
        content = held.get("bytes") if isinstance(held, dict) else None
        if not isinstance(content, bytes):
            raise DemonstrationError(f"{place} has no bytes of an image; images in other files are not opened")
        height, width, channels = self.image
        images = require("PIL.Image", "lerobot", self.table.source)
        try:
            with images.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                if image.size != (width, height):  # before the pixels are decoded
                    raise DemonstrationError(
                        f"{place} has {image.size[1]}×{image.size[0]} pixels, but meta/info.json says {height}×{width}"
                    )
                pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.uint8)
        except (images.DecompressionBombError, images.UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DemonstrationError(f"{place} is not a PNG or JPEG image that can be decoded ({error})") from error
        return pixels.reshape(height, width, -1)
