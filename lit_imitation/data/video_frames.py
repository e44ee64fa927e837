"""Frames of a video file, decoded by PyAV when they are sliced."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lit_imitation.data.columns import Array
from lit_imitation.errors import DemonstrationError, require


class VideoFrames:
    """`length` frames of an `.mp4` file as `[length, height, width, channels]` uint8.

    Frame i is the one shown at `start` + i / `fps` seconds: the first whose time is later than half a frame before.

    Args:
        source: Name of the source in messages.
        path: The file.
        image: `(height, width, channels)` of each frame.
        length: Number of frames.
        start: Time of the first frame, in seconds.
        fps: Frames per second.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, source: str, path: Path, image: tuple[int, int, int], length: int, start: float, fps: float
    ) -> None:
        self.source, self.path, self.image, self.length, self.start, self.fps = source, path, image, length, start, fps

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `[length, height, width, channels]`."""
        return (self.length, *self.image)

    def __getitem__(self, rows: slice) -> Array:
        """Decode these frames, from the last key frame before them.

        Raises:
            DemonstrationError: The file is no such video, ends too early, or its frames have another size.
            MissingExtraError: PyAV is not installed.
        """
        start, stop, step = rows.indices(self.length)
        wanted = range(start, max(start, stop), step)
        found: list[Array] = []
        if not wanted:
            return np.zeros((0, *self.image), np.uint8)
        av = require("av", "video", self.source)
        try:
            # Only this file, as the container that its name says: no playlists, no network.
            options = {"protocol_whitelist": "file"}
            with av.open(str(self.path), format="mp4", options=options) as container:
                stream = container.streams.video[0]
                if (stream.height, stream.width) != self.image[:2]:
                    raise DemonstrationError(
                        f"{self.source}: {self.path} has {stream.height}×{stream.width} pixels, but meta/info.json "
                        f"says {self.image[0]}×{self.image[1]}"
                    )
                first = self.start + start / self.fps
                container.seek(int(max(first - 0.5 / self.fps, 0.0) / stream.time_base), stream=stream)
                waiting = iter(wanted)
                target = next(waiting)
                for frame in container.decode(stream):
                    if frame.time is None or frame.time < self.start + (target - 0.5) / self.fps:
                        continue
                    found.append(self._pixels(frame))
                    following = next(waiting, None)
                    if following is None:
                        break
                    target = following
        except (av.FFmpegError, IndexError) as error:
            raise DemonstrationError(f"{self.source}: {self.path} cannot be read as a video ({error})") from error
        if len(found) < len(wanted):
            raise DemonstrationError(
                f"{self.source}: lengths differ: {self.path} ends before frame {wanted[len(found)]}, but the episode "
                f"has {self.length} steps"
            )
        return np.stack(found)

    def _pixels(self, frame: object) -> Array:
        layout = "gray" if self.image[2] == 1 else "rgb24"
        pixels: Array = frame.to_ndarray(format=layout)  # type: ignore[attr-defined]
        return pixels.reshape(*self.image)
