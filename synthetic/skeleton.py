"""The skeleton of a walking figure: its pose in three dimensions, as body parts that wear textures.

Body frame in meters, origin on the ground between the feet: x to the person's right, y forward, z up.
"""

import math
from dataclasses import dataclass

from synthetic.cloth import LIMB_ROWS, PADDED, Texture
from synthetic.textures import Looks

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    yaw: float  # from the person's heading to the direction of the camera, towards the person's right; 0: seen in front
    phase: float  # of the gait, radians; a full turn is two steps
    swing: float  # 1 at walking pace, 0 standing


@dataclass(frozen=True)
class Part:
    shape: str  # a key of `figure.PROFILES`
    texture: Texture
    start: Point  # first end of its axis
    end: Point
    wide: float  # half width, meters
    deep: float  # half depth, meters
    nearer: float = 0.0  # added to the depth by which parts are ordered, meters
    sole: bool = False  # a shoe: the x axis of its sprite points down


def _limb(
    shape: str, texture: Texture, start: Point, end: Point, radius: float, *, nearer: float = 0.0, sole: bool = False
) -> Part:
    """A round part."""
    return Part(shape, texture, start, end, radius, radius, nearer, sole)


def body_parts(looks: Looks, pose: Pose) -> list[Part]:
    """The parts of a person in this pose."""
    person = looks.person
    k = person.height_m / 1.75  # all lengths below are those of a person of 1.75 m
    build = person.build
    hip_z = person.leg_share * person.height_m
    shoulder_z, head_z = 0.835 * person.height_m, 0.925 * person.height_m
    swing = person.stride * pose.swing
    bob = -0.018 * pose.swing * abs(math.sin(pose.phase))
    hip_z, shoulder_z, head_z = hip_z + bob, shoulder_z + bob, head_z + bob
    lean = 0.035 * k * pose.swing
    thigh = person.leg_share * person.height_m * 0.47
    shin = person.leg_share * person.height_m - thigh - 0.075 * k
    half_shoulder, half_hip = 0.205 * k * (0.55 + 0.45 * build), 0.165 * k * build
    loose = {"coat": 1.12, "jacket": 1.10, "hoodie": 1.09, "vest": 1.08, "sweater": 1.03}.get(person.upper, 1.0)
    slim = 1.0 if person.lower in ("trousers", "shorts") else 0.86
    parts: list[Part] = []
    for side, leg in ((1, looks.right_leg), (-1, looks.left_leg)):
        phase = pose.phase if side == 1 else pose.phase + math.pi
        angle = swing * math.sin(phase)
        bend = pose.swing * (0.12 + 0.85 * max(0.0, math.cos(phase)) ** 2 * (0.6 + 0.4 * math.cos(phase)))
        hip_x = side * half_hip * 0.52
        knee = (hip_x, thigh * math.sin(angle), hip_z - thigh * math.cos(angle))
        below = angle - bend
        ankle = (hip_x * 0.9, knee[1] + shin * math.sin(below), knee[2] - shin * math.cos(below))
        thigh_start, thigh_end = (hip_x, 0.0, hip_z + 0.07 * k), (knee[0], knee[1], knee[2] - 0.02 * k)
        shin_start, shin_radius = (knee[0], knee[1], knee[2] + 0.025 * k), 0.064 * k * (0.4 + 0.6 * build) * slim
        half = LIMB_ROWS * PADDED
        parts.append(_limb("thigh", leg[:half], thigh_start, thigh_end, 0.088 * k * build * slim))
        parts.append(_limb("shin", leg[half:], shin_start, ankle, shin_radius))
        tip = min(0.0, below + 0.25) * 0.8  # behind the body the toes point down
        heel = (ankle[0], ankle[1] - 0.075 * k, ankle[2] - 0.03 * k)
        toe = (
            ankle[0] + side * 0.02,
            ankle[1] + 0.19 * k * math.cos(tip),
            ankle[2] - 0.045 * k + 0.19 * k * math.sin(tip),
        )
        parts.append(_limb("shoe", looks.shoe, heel, toe, 0.05 * k, sole=True))
        arm_angle = -0.85 * swing * math.sin(phase)
        shoulder = (side * (half_shoulder - 0.035 * k), lean, shoulder_z - 0.035 * k)
        spread = side * (0.045 + 0.03 * (loose - 1) * 10) * k
        elbow = (shoulder[0] + spread, shoulder[1] + 0.29 * k * math.sin(arm_angle), shoulder[2] - 0.285 * k)
        fore = arm_angle + 0.22 + 0.25 * pose.swing * max(0.0, arm_angle)
        wrist = (elbow[0] - spread * 0.2, elbow[1] + 0.33 * k * math.sin(fore), elbow[2] - 0.33 * k * math.cos(fore))
        radius = 0.054 * k * (0.45 + 0.55 * build) * loose
        upper_end, lower_start = (elbow[0], elbow[1], elbow[2] - 0.02 * k), (elbow[0], elbow[1], elbow[2] + 0.02 * k)
        parts.append(_limb("arm", looks.upper_arm, shoulder, upper_end, radius, nearer=0.06))
        parts.append(_limb("forearm", looks.forearm, lower_start, wrist, radius * 0.84, nearer=0.07))
        if person.bag == "hand" and side == (1 if person.bag_right else -1):
            top, bottom = (wrist[0], wrist[1], wrist[2] + 0.03), (wrist[0], wrist[1], wrist[2] - 0.3 * k)
            parts.append(Part("box", looks.bag, top, bottom, 0.055 * k, 0.17 * k, 0.08))

    hem = hip_z - (0.30 * k if person.upper == "coat" else 0.06 * k)
    if looks.skirt is not None:
        waist, skirt_end = (0, 0, hip_z + 0.12 * k), (0, 0, hip_z - (0.40 + 0.1 * person.pattern_scale) * k)
        parts.append(Part("skirt", looks.skirt, waist, skirt_end, 0.24 * k * build, 0.2 * k * build, 0.18))
    shape, nearer = ("coat", 0.21) if person.upper == "coat" else ("torso", 0.2)
    wide, deep = max(half_shoulder, half_hip * 1.02) * loose, 0.125 * k * build * loose
    parts.append(Part(shape, looks.torso, (0, lean, shoulder_z + 0.045 * k), (0, 0, hem), wide, deep, nearer))
    parts += _head_parts(looks, k, lean, shoulder_z, head_z)
    side = 1 if person.bag_right else -1
    if person.bag == "backpack":
        top, bottom = (0, lean - 0.20 * k, shoulder_z - 0.01), (0, -0.19 * k, shoulder_z - 0.45 * k)
        parts.append(Part("box", looks.bag, top, bottom, 0.155 * k, 0.10 * k, 0.06))
    elif person.bag in ("shoulder", "crossbody"):
        x = side * (half_hip + 0.07 * k)
        top, bottom = (x, -0.02, hip_z + 0.16 * k), (x, -0.02, hip_z - 0.12 * k)
        parts.append(Part("box", looks.bag, top, bottom, 0.06 * k, 0.16 * k, 0.08))
    return parts


def _head_parts(looks: Looks, k: float, lean: float, shoulder_z: float, head_z: float) -> list[Part]:
    """Neck, head, hair and hat."""
    person = looks.person
    y = lean + 0.02 * k
    top, chin = head_z + 0.125 * k, head_z - 0.115 * k
    neck_radius = (0.085 if person.scarf else 0.055) * k
    neck_start, neck_end = (0, lean, chin + 0.05 * k), (0, lean, shoulder_z + 0.01)
    parts = [
        _limb("neck", looks.neck, neck_start, neck_end, neck_radius, nearer=0.202),
        Part("head", looks.head, (0, y, top), (0, y, chin), 0.083 * k, 0.098 * k, 0.215),
    ]

    def add(shape: str, texture: Texture, start: Point, end: Point, wide: float, deep: float, nearer: float) -> None:
        parts.append(Part(shape, texture, start, end, wide, deep, nearer))

    if person.hat == "hood":
        start, end = (0, y - 0.045 * k, top + 0.03 * k), (0, y - 0.05 * k, chin - 0.06 * k)
        add("hair", looks.hat, start, end, 0.115 * k, 0.1 * k, 0.214)
    elif person.hair == "long":
        start, end = (0, y - 0.05 * k, top - 0.05 * k), (0, y - 0.075 * k, chin - 0.17 * k)
        add("hair", looks.hair, start, end, 0.1 * k, 0.07 * k, 0.214)
    elif person.hair == "bob":
        start, end = (0, y - 0.035 * k, top - 0.03 * k), (0, y - 0.04 * k, chin - 0.01 * k)
        add("hair", looks.hair, start, end, 0.107 * k, 0.095 * k, 0.214)
    elif person.hair == "afro" and person.hat == "none":
        start, end = (0, y - 0.03 * k, top + 0.07 * k), (0, y - 0.03 * k, chin + 0.03 * k)
        add("ball", looks.hair, start, end, 0.15 * k, 0.14 * k, 0.214)
    elif person.hair == "bun" and person.hat in ("none", "cap"):
        start, end = (0, y - 0.09 * k, top + 0.04 * k), (0, y - 0.1 * k, top - 0.07 * k)
        add("ball", looks.hair, start, end, 0.055 * k, 0.055 * k, 0.214)
    elif person.hair == "tail":
        start, end = (0, y - 0.11 * k, top - 0.07 * k), (0, y - 0.13 * k, chin - 0.13 * k)
        add("hair", looks.hair, start, end, 0.04 * k, 0.04 * k, 0.214)
    if person.hat == "cap":
        brim = head_z + 0.04 * k
        start, end = (0, y + 0.1 * k, brim + 0.02 * k), (0, y + 0.1 * k, brim - 0.02 * k)
        add("ball", looks.hat, start, end, 0.07 * k, 0.075 * k, 0.216)
    elif person.hat == "brim":
        brim = head_z + 0.045 * k
        add("ball", looks.hat, (0, y, brim + 0.03 * k), (0, y, brim - 0.025 * k), 0.165 * k, 0.165 * k, 0.217)
        add("box", looks.hat, (0, y, top + 0.035 * k), (0, y, brim), 0.085 * k, 0.095 * k, 0.218)
    return parts
