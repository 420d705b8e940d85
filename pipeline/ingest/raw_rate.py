"""The frame rate that a raw stream states in itself, outside any container.

MPEG-1, MPEG-2 and most MPEG-4 streams state it in their headers. H.263 numbers its pictures in steps of 1001/30000 s
(ITU-T H.263, 5.1.2, temporal reference). What H.264 and H.265 may state is often wrong, so it does not count.
"""

from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import av

_PICTURES = 60  # of H.263 that are looked at
_H263_CLOCK = 30000 / 1001
_MOST = 240.0


def raw_rate(path: Path) -> float | None:
    """Frames a second of a raw MPEG-1, MPEG-2, MPEG-4 or H.263 file; None of any other, and where it is not stated."""
    try:
        with av.open(str(path)) as container:
            if container.format.name not in ("mpegvideo", "m4v", "h263") or not container.streams.video:
                return None
            video = container.streams.video[0]
            if container.format.name != "h263":
                stated = float(video.codec_context.framerate or 0)
                return stated if 1 <= stated <= _MOST else None  # MPEG-4 may state a clock of thousands of ticks
            packets = islice((bytes(packet) for packet in container.demux(video) if packet.size > 4), _PICTURES)
            numbers = [(data[2] & 3) << 6 | data[3] >> 2 for data in packets]
    except (av.FFmpegError, OSError, ValueError):
        return None
    steps = Counter((later - earlier) % 256 for earlier, later in pairwise(numbers))
    step = steps.most_common(1)[0][0] if steps else 0
    return _H263_CLOCK / step if step else None
