"""Embed pictures of people and say how far apart they are.

    python examples/compare_two_pictures.py

A Re-ID model turns the picture of one person, cut out, into a feature: a vector of D numbers. Pictures of one person
have features that lie near each other, whoever took them. This example needs no data and no GPU: it draws people, and
uses the model that comes with the package, which has only ever seen such drawings.
"""

import tempfile
from pathlib import Path

import cv2

import reid_core

# A data set of four drawn people. Half of them are for training; the others are query and gallery. In the gallery each
# person is seen again, by other cameras.
people = reid_core.open_dataset("rendered:11:4")
first = people.query[0]
again = next(s for s in people.gallery if s.identity == first.identity and s.camera != first.camera)
other = next(s for s in people.gallery if s.identity != first.identity)

# A model is a folder (weights and `card.json`), or an OpenVINO .xml or .onnx file. Opening one loads torch.
model = reid_core.open_model(reid_core.DEMO_MODEL)
print(model)

# `embed` takes files and arrays, mixed; arrays are uint8 RGB (h, w, 3) of any size. Here the first one is a file.
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "first.png"
    cv2.imwrite(str(file), cv2.cvtColor(first.read(), cv2.COLOR_RGB2BGR))
    features = model.embed([file, again.read(), other.read()])
print(f"features: {features.dtype} {features.shape}")

# Distances lie between 0 (the same picture) and 2. This model has diff attention: it looks at the difference of the two
# features and weighs the channels that tell these two apart. `plain=True` leaves that out.
attended = model.distances(features[:1], features[1:])[0]
plain = model.distances(features[:1], features[1:], plain=True)[0]
print(f"the same person at another camera: attended {attended[0]:.3f}, plain {plain[0]:.3f}")
print(f"another person:                    attended {attended[1]:.3f}, plain {plain[1]:.3f}")

# A distance alone says nothing about how sure that is: for this, see evaluate_a_model.py (a threshold for a false
# positive rate) and `urban-reid models calibrate` (probabilities).
assert attended[0] < attended[1]
