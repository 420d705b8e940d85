"""What tests train."""

from schemas.parameters import TrainParameters

#: A training that takes seconds.
PARAMETERS = TrainParameters(
    name="Better.1",
    dataset="rendered:5:24",
    reason="a <b>test</b>",
    operator="anna",
    strategy="plain",
    architecture="resnet10s",
    height=64,
    width=32,
    epochs=1,
    identities_per_batch=6,
)
