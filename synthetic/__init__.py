"""Rendered pedestrians and simulated cities, from a seed. numpy and OpenCV only."""

from synthetic.training import TrainingPictures, training_set

__all__ = ["TrainingPictures", "training_set"]
