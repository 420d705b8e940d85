"""Which engine and precision is fastest on this processor: measured on first use, and kept.

`trial` lets forms of a computation take turns, `kept` holds what was measured. Who computes has the forms: a model when
it is registered (`reid_core.export.chosen`), pairs (`reid_core.evaluation.pairs`), training (`reid_core.training.run`).
"""
