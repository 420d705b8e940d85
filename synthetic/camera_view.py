"""The picture that one camera takes of a person: projection, scene, colors and image defects.

A camera is a pinhole above the ground that looks at one point. Ground positions are meters east and north; headings and
azimuths are radians from east towards north. Frames have FRAME pixels; boxes are x, y, width, height in the frame.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from synthetic.figure import Light, draw_figure, draw_shadow
from synthetic.skeleton import Pose
from synthetic.textures import Looks

Picture = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

FRAME = (1280, 720)
#: Scenes are stored at half the resolution of the frame.
_SCENE_SCALE = 0.5
#: Figures are drawn on canvases of at most this height, pixels, then scaled to their box.
_CANVAS_HEIGHT = 192


@dataclass(frozen=True)
class Difficulty:
    """How hard it is to tell the people in the pictures apart. Numbers are standard deviations unless said otherwise.

    The defaults are those of a city. With them and the demo model, the nearest-neighbor baseline reaches a pairwise F1
    of 0.45 to 0.6 over seeds 1-10, at the best threshold of other seeds.
    """

    look_alike_share: float = 0.5  # share of people in groups of look-alikes
    group: tuple[int, int] = (2, 4)  # smallest and largest group of look-alikes
    spread: float = 5.0  # of garment colors within a group, of 255
    cast: float = 0.08  # log of a camera's red gain, minus log of its blue gain; a third of it for green
    gamma: float = 0.13  # log of a camera's gamma
    exposure: float = 0.12  # log of a passage's brightness
    blur_px: tuple[float, float] = (0.3, 1.3)  # smallest and largest, by camera
    noise: tuple[float, float] = (2.0, 9.0)  # smallest and largest, by camera, of 255
    quality: tuple[int, int] = (35, 85)  # smallest and largest JPEG quality, by camera
    box_error: float = 0.045  # of a box's position and size, relative to its size
    crowding: float = 0.12  # share of pictures with a person passing in front
    missed: float = 0.07  # share of detections that are missed


@dataclass(frozen=True)
class Post:
    """An object that hides people behind it, in pixels of the frame."""

    left: int
    right: int
    top: int
    base: int
    shade: tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    spot: tuple[float, float]  # the ground point it looks at
    azimuth: float  # viewing direction
    distance_m: float  # from its foot to the spot
    mount_m: float  # its height
    focal_px: float
    color: npt.NDArray[np.float32]  # (3, 4) cast and saturation; zero for the canvas' fourth channel
    curve: npt.NDArray[np.uint8]  # (256, 1) gamma
    blur_px: float
    noise: float
    quality: int
    light: Light
    shade_x: int  # pixels left of this are in the shade of a house
    scene: Picture
    posts: tuple[Post, ...]

    def look(self, x: float, y: float) -> tuple[float, float, float, float]:
        """For a ground point: pixel x and y in the frame, pixels per meter, viewing angle downwards in radians."""
        east, north = x - self.spot[0], y - self.spot[1]
        ahead = self.distance_m + east * math.cos(self.azimuth) + north * math.sin(self.azimuth)
        right = east * math.sin(self.azimuth) - north * math.cos(self.azimuth)
        tilt = math.atan2(self.mount_m - 0.9, self.distance_m)
        depth = ahead * math.cos(tilt) + self.mount_m * math.sin(tilt)
        below = self.mount_m * math.cos(tilt) - ahead * math.sin(tilt)
        scale = self.focal_px / depth
        return FRAME[0] / 2 + scale * right, FRAME[1] / 2 + scale * below, scale, math.atan2(self.mount_m - 0.9, ahead)

    def bearing(self, x: float, y: float) -> float:
        """The direction from a ground point to the camera, radians."""
        east = self.spot[0] - self.distance_m * math.cos(self.azimuth) - x
        north = self.spot[1] - self.distance_m * math.sin(self.azimuth) - y
        return math.atan2(north, east)


@dataclass(frozen=True)
class Walker:
    """A person at one moment: ground position (meters), heading and phase of the gait (radians)."""

    looks: Looks
    x: float
    y: float
    heading: float
    phase: float
    swing: float = 1.0


def draw_camera(rng: np.random.Generator, spot: tuple[float, float], azimuth: float, difficulty: Difficulty) -> Camera:
    """A camera that looks at `spot` along `azimuth`, with random optics, colors and scene."""
    warm, green = rng.normal(0, difficulty.cast, 2) * (1.0, 0.3)
    gains = np.exp([warm, green, -warm])
    gray = np.full((3, 3), 1 / 3)
    saturation = float(rng.uniform(0.6, 1.1))
    color = np.diag(gains) @ (gray + saturation * (np.eye(3) - gray))
    gamma = float(np.exp(rng.normal(0, difficulty.gamma)))
    curve = 255 * (np.arange(256) / 255) ** gamma
    distance, mount = float(rng.uniform(8.5, 14.0)), float(rng.uniform(3.0, 5.5))
    camera = Camera(
        spot=spot,
        azimuth=azimuth,
        distance_m=distance,
        mount_m=mount,
        focal_px=float(rng.uniform(640, 980)),
        color=np.hstack([color, np.zeros((3, 1))]).astype(np.float32),
        curve=np.round(curve).astype(np.uint8)[:, None],
        blur_px=float(rng.uniform(*difficulty.blur_px)),
        noise=float(rng.uniform(*difficulty.noise)),
        quality=int(rng.integers(*difficulty.quality)),
        light=Light(side=float(rng.uniform(-0.9, 0.9)), ambient=float(rng.uniform(0.42, 0.68))),
        shade_x=int(rng.integers(200, 900)) if rng.random() < 0.5 else 0,
        scene=np.empty((0, 0, 3), np.uint8),
        posts=(),
    )
    ground = camera.look(spot[0] + 7 * math.cos(azimuth), spot[1] + 7 * math.sin(azimuth))[1]
    return replace(camera, scene=_draw_scene(rng, round(ground)), posts=_draw_posts(rng, camera))


def photograph(
    camera: Camera,
    walker: Walker,
    rng: np.random.Generator,
    difficulty: Difficulty,
    *,
    exposure: float,
    stranger: Looks | None = None,
) -> tuple[Picture, Box] | None:
    """The crop (uint8 RGB) that a detector cuts from the camera's frame, and its box.

    exposure: brightness of this passage; 1 is usual. stranger: a person between walker and camera. None where the box
    is mostly outside the frame or too small to be detected.
    """
    x, y, scale, pitch = camera.look(walker.x, walker.y)
    person = walker.looks.person
    high = 1.07 * scale * person.height_m * math.cos(pitch)
    error = rng.normal(0, difficulty.box_error, 4)
    height = high * (1 + error[0])
    width = 0.45 * high * (1 + 1.5 * error[1])
    middle_x, middle_y = x + error[2] * width, y - 0.47 * high + error[3] * high
    left, top = max(0, round(middle_x - width / 2)), max(0, round(middle_y - height / 2))
    right, bottom = min(FRAME[0], round(middle_x + width / 2)), min(FRAME[1], round(middle_y + height / 2))
    if right - left < max(12, 0.6 * width) or bottom - top < max(32, 0.7 * height):
        return None
    box = (left, top, right - left, bottom - top)
    zoom = min(1.5, _CANVAS_HEIGHT / box[3])
    canvas = _background(camera, box, zoom)
    foot = ((x - left) * zoom, (y - top) * zoom)
    yaw = walker.heading - camera.bearing(walker.x, walker.y)
    yaw = (yaw + math.pi) % (2 * math.pi) - math.pi
    draw_shadow(canvas, foot, 0.36 * scale * zoom, 0.5)
    draw_figure(canvas, walker.looks, Pose(yaw, walker.phase, walker.swing), foot, scale * zoom, pitch, camera.light)
    _hide(canvas, camera, box, zoom, base=y)
    if stranger is not None:
        aside = float(rng.choice([-1, 1]) * rng.uniform(0.24, 0.5)) * scale * zoom
        pose = Pose(float(rng.uniform(-math.pi, math.pi)), float(rng.uniform(0, 6.28)), 1.0)
        nearer = (foot[0] + aside, foot[1] + 0.07 * scale * zoom)
        draw_figure(canvas, stranger, pose, nearer, 1.04 * scale * zoom, pitch, camera.light)
    if camera.shade_x > left:
        canvas[:, : round((camera.shade_x - left) * zoom)] *= 0.62
    return _develop(canvas, camera, box, rng, exposure), box


def _background(camera: Camera, box: Box, zoom: float) -> npt.NDArray[np.float32]:
    left, top, width, height = box
    size = (max(8, round(width * zoom)), max(16, round(height * zoom)))
    scene = camera.scene[
        int(top * _SCENE_SCALE) : math.ceil((top + height) * _SCENE_SCALE),
        int(left * _SCENE_SCALE) : math.ceil((left + width) * _SCENE_SCALE),
    ]
    canvas = cv2.cvtColor(cv2.resize(scene, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2RGBA)
    return canvas.astype(np.float32)


def _hide(canvas: npt.NDArray[np.float32], camera: Camera, box: Box, zoom: float, base: float) -> None:
    """Draws the posts in front of a person whose feet are at `base`, a pixel row of the frame."""
    for post in camera.posts:
        left, right = round((post.left - box[0]) * zoom), round((post.right - box[0]) * zoom)
        top, bottom = round((post.top - box[1]) * zoom), round((post.base - box[1]) * zoom)
        if post.base > base and right > 0 and left < canvas.shape[1] and bottom > 0 and top < canvas.shape[0]:
            round_ = 0.55 + 0.45 * np.sin(np.linspace(0.3, 2.9, right - left))[None, :, None]
            visible = round_[:, max(0, -left) : canvas.shape[1] - left]
            canvas[max(0, top) : bottom, max(0, left) : right, :3] = visible * np.array(post.shade)


def _develop(
    canvas: npt.NDArray[np.float32], camera: Camera, box: Box, rng: np.random.Generator, exposure: float
) -> Picture:
    """The canvas scaled to the box, with the camera's colors, blur, noise, gamma and JPEG coding."""
    picture = cv2.resize(canvas, (box[2], box[3]), interpolation=cv2.INTER_AREA)
    picture = cv2.transform(picture, camera.color * np.float32(exposure))
    if camera.blur_px > 0.35:
        picture = cv2.GaussianBlur(picture, (5, 5), camera.blur_px)
    row, column = rng.integers(0, _GRAIN_SHIFT, 2).tolist()
    grain = _grain()[row : row + box[3], column : column + box[2]]
    levels = cv2.LUT(cv2.addWeighted(picture, 1.0, grain, camera.noise, 0.0, dtype=cv2.CV_8U), camera.curve)
    coded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


#: Largest offset of a slice of the noise, pixels.
_GRAIN_SHIFT = 64


@lru_cache(maxsize=1)
def _grain() -> npt.NDArray[np.float32]:
    """Normal noise for the largest box. A slice at a random offset is ten times as fast as fresh noise."""
    shape = (FRAME[1] + _GRAIN_SHIFT, FRAME[0] + _GRAIN_SHIFT, 3)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _draw_posts(rng: np.random.Generator, camera: Camera) -> tuple[Post, ...]:
    """Bollards, lamp posts and bins, in front of or behind where people walk."""
    posts = []
    for _ in range(int(rng.integers(1, 5))):
        along, across = rng.uniform(-3, 1.0), rng.uniform(-4, 4)
        east = along * math.cos(camera.azimuth) + across * math.sin(camera.azimuth)
        north = along * math.sin(camera.azimuth) - across * math.cos(camera.azimuth)
        x, y, scale, _ = camera.look(camera.spot[0] + east, camera.spot[1] + north)
        kind = int(rng.integers(3))  # bollard, bin, lamp post
        wide, high = ((0.16, 0.9), (0.5, 0.85), (0.13, 4.0))[kind]
        tone = float(rng.uniform(40, 150))
        shade = (tone, tone * float(rng.uniform(0.9, 1.05)), tone * float(rng.uniform(0.8, 1.1)))
        posts.append(
            Post(round(x - wide * scale / 2), round(x + wide * scale / 2) + 1, round(y - high * scale), round(y), shade)
        )
    return tuple(posts)


def _draw_scene(rng: np.random.Generator, ground_y: int) -> Picture:
    """A house front above paving. ground_y: pixel row of the frame where the wall meets the ground."""
    width, height = (round(side * _SCENE_SCALE) for side in FRAME)
    ground = int(np.clip(ground_y * _SCENE_SCALE, 0.12 * height, 0.6 * height))
    wall = rng.uniform(90, 210) * np.array([1.0, rng.uniform(0.86, 1.0), rng.uniform(0.72, 1.0)])
    floor = rng.uniform(90, 180) * np.array([1.0, rng.uniform(0.95, 1.02), rng.uniform(0.9, 1.05)])
    scene = np.empty((height, width, 3), np.float32)
    scene[:ground] = wall
    fade = np.linspace(0.8, 1.1, height - ground)[:, None, None]
    scene[ground:] = floor * fade
    bricks = int(rng.integers(0, 3))
    if bricks:
        for row in range(0, ground, 7 * bricks):
            cv2.line(scene, (0, row), (width, row), (wall * 0.88).tolist(), 1)
    step = int(rng.integers(80, 150))
    for x in range(int(rng.integers(0, step)), width, step):
        pane = rng.uniform(30, 110) * np.array([0.85, 0.95, 1.1])
        top = int(rng.integers(0, max(1, ground // 3)))
        bottom = ground if rng.random() < 0.3 else int(ground * rng.uniform(0.65, 0.85))
        cv2.rectangle(scene, (x, top), (x + int(step * 0.5), bottom), pane.tolist(), -1)
        cv2.rectangle(scene, (x, top), (x + int(step * 0.5), bottom), (wall * rng.uniform(0.5, 1.2)).tolist(), 2)
    if rng.random() < 0.5:
        sign = rng.uniform(30, 220, 3).tolist()
        left = int(rng.integers(0, width // 2))
        cv2.rectangle(scene, (left, ground // 3), (left + 150, ground // 3 + 16), sign, -1)
    joint = (floor * 0.8).tolist()
    paving = scene[ground:]
    vanish = (width // 2 + int(rng.integers(-200, 200)), -int(rng.integers(60, 160)))
    for x in range(-2 * width, 3 * width, int(rng.integers(60, 130))):
        cv2.line(paving, vanish, (x, height - ground), joint, 1, cv2.LINE_AA)
    below = 4.0
    while ground + below < height:
        cv2.line(paving, (0, round(below)), (width, round(below)), joint, 1)
        below = 6 + 1.16 * below
    scene[max(0, ground - 3) : ground] = wall * 0.6
    if rng.random() < 0.25:
        strip = ground + int((height - ground) * rng.uniform(0.05, 0.25))
        scene[strip : strip + 14] = np.array([88, 104, 74]) * rng.uniform(0.7, 1.1)
    cloud = cv2.resize(rng.normal(0, 1, (9, 16)), (width, height), interpolation=cv2.INTER_CUBIC)
    scene *= (1 + 0.05 * cloud + 0.025 * rng.normal(0, 1, (height, width)))[..., None].astype(np.float32)
    return np.clip(scene, 0, 255).astype(np.uint8)
