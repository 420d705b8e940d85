"""Streams for which hardware is asked for, on a machine that has none: the processor decodes them, and it is said."""

from urllib.parse import quote

import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available

from pipeline.ingest.frames import open_frames
from pipeline.ingest.hardware import PROCESSOR, Decoding, decoding
from pipeline.ingest.live_camera import LiveCamera
from schemas.settings import Settings
from tests.helpers.rtsp_camera import PASSWORD, USER, camera

FRAMES = [np.full((64, 64, 3), 40 * number, np.uint8) for number in range(4)]

without_cuda = pytest.mark.skipif(
    "cuda" not in hwdevices_available() or decoding("cuda").device is not None,
    reason="FFmpeg knows no CUDA, or this machine has it",
)


def test_off_asks_for_nothing() -> None:
    assert decoding("off") is PROCESSOR
    assert PROCESSOR.accelerator() is None and not PROCESSOR.note


def test_hardware_that_ffmpeg_does_not_know_is_not_taken_for_any_other() -> None:
    found = decoding("dxva2")
    assert found.device is None and found.note.startswith("no dxva2 to decode with (FFmpeg here knows ")


def test_an_ingest_of_a_stream_notes_it() -> None:
    live = open_frames("rtsp://127.0.0.1:1/x", None, Settings(hardware_decoding="dxva2"))
    assert [note.partition(" (")[0] for note in live.notes] == ["no dxva2 to decode with"]


@without_cuda
def test_hardware_that_is_not_there_is_said() -> None:
    assert decoding("cuda").note.startswith("no cuda to decode with")
    assert decoding("cuda").device is None


@without_cuda
def test_a_stream_that_hardware_gives_no_frame_of_is_decoded_by_the_processor() -> None:
    """The device was found, and opening the stream with it fails, as where another process holds it."""
    told: list[tuple[bool, str]] = []
    said: list[str] = []
    with camera(FRAMES, plays=2) as serving:
        address = serving.address.replace("rtsp://", f"rtsp://{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@")
        live = LiveCamera(
            lambda: address,
            "camera",
            looks_per_s=30,
            tell=lambda up, _, why: told.append((up, why)),
            decoding=Decoding("cuda"),
            say=said.append,
        )
        frame = next(iter(live))[2]
    assert frame.shape == (64, 64, 3)
    assert told[0] == (True, "")
    assert said == ["cuda gives no frame of this stream: the processor decodes it"]
