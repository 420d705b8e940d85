"""Train diff attention on top of an embedder that was made elsewhere, and see what it adds.

    python examples/diff_attention_on_a_foreign_embedder.py

The embedder is a file (OpenVINO .xml or .onnx) whose weights nobody can change. What can be learned is how to compare
two of its features: diff attention looks at their difference and weighs the channels that tell these two people apart.
This is the paper's separate training. Needs the extra `urban-reid[onnx]`.
"""

import shutil
import tempfile
from pathlib import Path

import reid_core
from reid_core.evaluation.evaluate import model_directory
from reid_core.export.export import export_model
from reid_core.training.plans import TrainSettings
from reid_core.training.recipe import Recipe, make_model
from schemas.cards import ModelConfig
from schemas.settings import settings

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)

    # To have a foreign file, the packaged model's network goes to ONNX. Its diff attention stays behind: from here on
    # there is a file that turns pictures into vectors, and nothing else is known of it but its input convention.
    export_model(settings(), reid_core.DEMO_MODEL, folder / "exported", "onnx")
    file = Path(shutil.copy(folder / "exported" / "model.onnx", folder / "foreign.onnx"))
    convention = reid_core.open_model(reid_core.DEMO_MODEL).card.input

    # The file can be used as it is. It has plain distances only.
    people = reid_core.open_dataset("rendered:31:24")
    foreign = reid_core.open_model(file, convention=convention)
    print(f"{foreign}: {reid_core.evaluate(foreign, people)['plain']}")

    # The recipe: what to begin with, the module's shape, and a plan. `cached_views` embeds two augmented views of each
    # picture once, since the embedder never changes, so an epoch costs a second. A real run takes more of everything;
    # `urban-reid reproduce table2 --start FILE` has the paper's plan.
    plan = TrainSettings(
        strategy="separate",
        triplet_distance="test",
        margin=None,
        triplet_weight=10,
        epochs=4,
        learning_rate=1e-3,
        warmup=0,
        identities_per_batch=8,
        cached_views=2,
        validate_every=4,
    )
    attention = reid_core.DiffAttentionSettings(transform="sub_abs", reduction=4)
    with model_directory(file, convention, settings()) as start:
        config = ModelConfig(architecture="foreign", baseline="foreign", input=convention, diff_attention=attention)
        train, query, gallery = (people.load(split, convention) for split in ("train", "query", "gallery"))
        card, epochs = make_model(
            Recipe(config, (plan,), start=start),
            train,
            (query, gallery),
            folder / "work",
            folder / "model",
            settings(),
            name="foreign-with-attention",
        )
    print("training loss by epoch:", ", ".join(f"{epoch.losses['triplet']:.2f}" for epoch in epochs))

    # The result is a model folder: the file as it was, the module's weights, and a card. It opens like any other, and
    # `urban-reid models register NAME FOLDER` takes it into a city. A dozen people teach the module little, so that the
    # figures differ by chance here; docs/results.md has what it adds on real people.
    together = reid_core.open_model(folder / "model")
    print(together)
    for distances, found in reid_core.evaluate(together, people).items():
        print(f"{distances:9} {found}")
