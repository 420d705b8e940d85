# mypy: ignore-errors
# It runs in the system's Python; `gi` is known there only.
"""An RTSP server for tests, on loopback, made of GStreamer's. It needs the system's Python, where `gi` is.

    /usr/bin/python3 gst_rtsp_server.py PORT USER PASSWORD FPS CLIENTS MOUNT=VIDEO[:WIDTHxHEIGHT] ...

Each video (MJPEG in AVI) is encoded as H.264 before the server says "ready", and served from memory in a loop to all
clients of its mount at once, at most CLIENTS in all (0: any number). Lines on its standard input change what is served:

    MOUNT go | stall | freeze | garbage | play VIDEO-NUMBER
"""

import random
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"


def encoded(video, fps):
    """The access units of a video file as H.264, a key frame each second."""
    path, _, size = video.partition(":")
    width, _, height = size.partition("x")
    scaled = f"! video/x-raw,width={width},height={height} " if size else ""
    pipeline = Gst.parse_launch(
        f'filesrc location="{path}" ! avidemux ! jpegdec ! videoconvert ! videoscale {scaled}'
        f"! videorate ! video/x-raw,format=I420,framerate={fps}/1 "
        f"! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={fps} threads=1 ! h264parse config-interval=-1 "
        f"! {CAPS} ! appsink name=out sync=false"
    )
    pipeline.set_state(Gst.State.PLAYING)
    out, units = pipeline.get_by_name("out"), []
    while (sample := out.emit("pull-sample")) is not None:
        buffer = sample.get_buffer()
        units.append((buffer.extract_dup(0, buffer.get_size()), not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)))
    pipeline.set_state(Gst.State.NULL)
    return units


class Mount(GstRtspServer.RTSPMediaFactory):
    """What is served below one path."""

    def __init__(self, fps, videos):
        super().__init__()
        self.videos, self.fps = videos, fps
        self.units, self.at, self.mode = videos[0], 0, "go"
        self.sources = []  # one for each media: two clients that come at once may get one each
        self.set_shared(True)
        self.set_launch(
            f"( appsrc name=source is-live=true format=time do-timestamp=true caps={CAPS} "
            "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        )
        GLib.timeout_add(round(1000 / fps), self.push)

    def do_configure(self, media):
        source = media.get_element().get_by_name("source")
        media.connect("unprepared", lambda _: self.sources.remove(source))
        self.sources.append(source)
        self.at = 0

    def push(self):
        if not self.sources or self.mode == "stall":
            return True
        unit, key = self.units[self.at]
        if not (self.mode == "freeze" and key):
            self.at = (self.at + 1) % len(self.units)
        if self.mode == "garbage":
            unit = unit[:6] + random.randbytes(len(unit) - 6)
        for source in self.sources:
            source.emit("push-buffer", Gst.Buffer.new_wrapped(unit))
        return True

    def obey(self, order, number=None):
        if order == "play":
            self.units, self.at = self.videos[int(number)], 0
        else:
            self.mode = order


def main(address, port, user, password, fps, clients, *named):
    server, mounts = GstRtspServer.RTSPServer(), {}
    server.set_address(address)
    server.set_service(port)
    server.get_session_pool().set_max_sessions(int(clients))
    if user:
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
    videos = {}
    for name in named:
        mount, _, video = name.partition("=")
        videos.setdefault(mount, []).append(encoded(video, int(fps)))
    for name, its in videos.items():
        mounts[name] = Mount(int(fps), its)
        if user:
            roles = {"media.factory.access": True, "media.factory.construct": True}
            structure = Gst.Structure.new_empty("viewer")
            for role, allowed in roles.items():
                structure.set_value(role, allowed)
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_role_from_structure(structure)
            mounts[name].set_permissions(permissions)
        server.get_mount_points().add_factory(f"/{name}", mounts[name])
    loop = GLib.MainLoop()
    if not server.attach(None):
        raise SystemExit("the port is in use")

    def listen():
        for line in sys.stdin:
            mount, *order = line.split()
            GLib.idle_add(lambda m=mount, o=order: mounts[m].obey(*o) and False)
        GLib.idle_add(loop.quit)

    threading.Thread(target=listen, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
