import numpy as np

from reid_core import DEMO_MODEL
from reid_core.datasets.person_pictures import PersonPictures
from reid_core.evaluation.evaluate import evaluate
from reid_core.files import read_card
from schemas.settings import Settings
from scripts.train_demo import INPUT
from synthetic.training import training_set

SETTINGS = Settings(device="cpu")


def rendered(seed: int, people: int) -> PersonPictures:
    found = training_set(seed, people, 8, (INPUT.height, INPUT.width))
    return PersonPictures(found.pictures, found.identities, found.cameras)


def test_the_shipped_model_tells_rendered_people_apart() -> None:
    card = read_card(DEMO_MODEL)
    assert card.sha256 and (DEMO_MODEL / "weights.safetensors").stat().st_size < 4 * 2**20
    people = rendered(77, 30)  # met neither in training nor in validation
    shuffled = PersonPictures(people.pictures, np.random.default_rng(0).permutation(people.identities), people.cameras)
    found = evaluate(SETTINGS, DEMO_MODEL, *people.split_queries())
    assert found["plain"].mAP > 65 and found["attended"].mAP > 65
    assert found["attended"].mAP > evaluate(SETTINGS, DEMO_MODEL, *shuffled.split_queries())["attended"].mAP + 50
