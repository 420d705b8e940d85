"""Rendered pedestrians and simulated cities from a seed, with numpy and OpenCV only."""

from synthetic.camera_view import Difficulty
from synthetic.rendered_city import SimulatedCity, SimulatedCrop, simulate_city, write_city
from synthetic.training import TrainingPictures, training_set

__all__ = [
    "Difficulty",
    "SimulatedCity",
    "SimulatedCrop",
    "TrainingPictures",
    "simulate_city",
    "training_set",
    "write_city",
]
