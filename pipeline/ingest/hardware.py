"""Which hardware decodes streams: what the setting `hardware_decoding` asks for, as far as this machine has it.

Recorded files are decoded by the processor always, so that one file gives the same crops on every machine.
"""

from dataclasses import dataclass
from functools import cache

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from schemas.settings import HardwareDecoding

#: Tried with its decoder: nearly all cameras send it, and where it cannot be decoded others cannot either.
_CODEC = "h264"


@dataclass(frozen=True)
class Decoding:
    """`device`: the kind of hardware as FFmpeg names it, None: the processor. `note`: why it is not what was asked."""

    device: str | None = None
    note: str = ""

    def accelerator(self) -> HWAccel | None:
        """To open a stream with. Streams in codecs that the hardware does not know are decoded by the processor."""
        return None if self.device is None else HWAccel(self.device, allow_software_fallback=True)


PROCESSOR = Decoding()


@cache
def decoding(asked: HardwareDecoding) -> Decoding:
    """The hardware of this machine that decodes streams."""
    if asked == "off":
        return PROCESSOR
    known = hwdevices_available()
    for device in known if asked == "auto" else [asked]:
        if device in known and _opens(device):  # FFmpeg takes a name that it does not know for any hardware
            return Decoding(device)
    there = f"knows {', '.join(known)}" if known else "knows none"
    which = "no hardware" if asked == "auto" else f"no {asked}"
    return Decoding(None, f"{which} to decode with (FFmpeg here {there}): the processor decodes")


def _opens(device: str) -> bool:
    try:
        HWAccel(device).create(av.Codec(_CODEC, "r"))
    except (av.FFmpegError, NotImplementedError):  # the second where FFmpeg has no decoder for it
        return False
    return True
