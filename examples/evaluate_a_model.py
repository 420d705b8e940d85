"""Evaluate a model as papers do: Rank-1, mAP and mINP on labeled pictures, and a threshold to use it with.

    python examples/evaluate_a_model.py

With real data, write `market1501:DIR`, `cuhk03:DIR` or `msmt17:DIR` in place of `rendered:...`; docs/guides/datasets.md
says how the folders look. `urban-reid evaluate` does the same from the command line.
"""

import reid_core
from reid_core.evaluation.verification import operating_point

# Drawn people whom the packaged model has not seen. The first half would be trained on, the second is judged: each
# person's first picture at each camera is a query, the rest is the gallery.
people = reid_core.open_dataset("rendered:23:24")
print(f"{len(people.query)} queries, {len(people.gallery)} pictures in the gallery")

# For each query the gallery is ranked by distance. Pictures of the query's own person *and* camera do not count.
model = reid_core.open_model(reid_core.DEMO_MODEL)
scores = reid_core.evaluate(model, people, rerank=True)
for name, found in scores.items():
    print(f"{name:9} {found}")

# Ranking says how good the order is. To say "the same person" needs a threshold. This one is set for a false positive
# rate of 1 % on one half of the people; its rates are measured on the other half, who had no part in it.
pairs = scores["attended"].pairs
assert pairs is not None
point = operating_point(pairs, "attended", people.source, 0.01)
if point is None:
    print("too few pairs for a threshold at this rate")
else:
    print(
        f"up to a distance of {point.threshold:.3f}: {100 * point.tpr:.1f} % of the pairs of one person are found, "
        f"and {100 * point.fpr:.2f} % of the pairs of two people are taken for one"
    )
