"""urban-reid models calibrate --on-city: a calibration from the city's own crops, without labels."""

from rich.box import SIMPLE

from schemas.settings import settings
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import steps


def calibrate_on_city(name: str, unit: str, false_merges: float | None, as_json: bool) -> None:
    """Learns the next version of the unit's calibrations, and says what it rests on."""
    from pipeline.calibration.unlabeled.learn import MAX_FALSE_MERGE_RATE
    from pipeline.calibration.unlabeled.versions import learn_now
    from pipeline.crops.crop_store import CropStore
    from pipeline.registry import find_model
    from pipeline.store import Store
    from reid_core.serving.factory import open_core

    with Store.open(settings(), "urban-reid models calibrate") as store:
        with store.begin() as connection:
            model = find_model(connection, name)
        most = MAX_FALSE_MERGE_RATE if false_merges is None else false_merges
        core = open_core(settings(), model.directory(settings()))
        with steps() as begin:
            outcome, learned = learn_now(
                store, core, CropStore(settings()), model, unit, max_false_merge_rate=most, on_step=begin
            )
    if as_json:
        print_json(
            {
                **outcome.model_dump(mode="json"),
                "false_merges": most,
                "calibrations": {level.value: one.model_dump(mode="json") for level, one in learned.levels.items()},
            }
        )
        return
    table = Table("level", "compared", "one person", "strangers", "joins from", "off by", box=SIMPLE, padding=(0, 1))
    for level, one in learned.levels.items():
        assert one.evidence is not None, "learned without labels"
        table.add_row(
            level.value,
            str(one.pairs),
            f"about {one.positives}",
            str(one.evidence.forbidden),
            f"{one.join_log_odds:+.1f}",
            f"{one.evidence.standard_error:.1f}",
        )
    if learned.levels:
        out().print(table)
        out().print(
            "compared: pairs that a resolve would compare. strangers: pairs that cannot be one person. joins from: "
            "log-odds; in a band below it a person decides. off by: standard error of the log-odds there, from a "
            "bootstrap over people; the less is known, the stricter the joins"
        )
    for line in outcome.lines(unit):
        out().print(shown(line), soft_wrap=True)
    if not learned.levels:
        out().print("nothing changes: more crops of more people are needed, or labeled data (--dataset)")
    elif model.in_use:
        out().print("the next `urban-reid resolve` of the district decides anew what this model decided in it")
    else:
        out().print(f"nothing that was decided changes: {shown(name)} is not in use")
