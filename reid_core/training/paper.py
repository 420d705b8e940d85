"""The paper's published figures as data, to compare ours with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reid_core.training.methods import METHODS, MethodName
from reid_core.training.plans import Strategy
from schemas.cards import Baseline, DiffAttentionSettings, ModelCard

#: The paper's data sets, in the order of its columns.
DATASETS = ("Market-1501", "CUHK03", "MSMT17")


@dataclass(frozen=True)
class Figures:
    """Scores in percent; mINP where it was published."""

    rank1: float
    mAP: float
    mINP: float | None = None


@dataclass(frozen=True)
class Row:
    """One trained model, and its scores on each of `DATASETS` where the paper states them."""

    name: str
    method: MethodName
    strategy: Strategy
    diff_attention: DiffAttentionSettings | None
    figures: Mapping[str, Figures]

    @property
    def baseline(self) -> Baseline:
        return METHODS[self.method].baseline


Transform = Literal["sub", "sub_squ", "sub_abs"]
#: The paper's names of the input transforms.
TRANSFORMS: Mapping[Transform, str] = {"sub": "Sub", "sub_squ": "Sub+Squ", "sub_abs": "Sub+Abs"}


def _figures(text: str) -> dict[str, Figures]:
    """The figures in a row of the paper's tables: Rank-1/mAP/mINP on each data set."""
    columns = [Figures(*(float(part) for part in column.split("/"))) for column in text.split("|")]
    return dict(zip(DATASETS, columns, strict=True))


def _row(method: MethodName, strategy: Strategy, transform: Transform | None, figures: Mapping[str, Figures]) -> Row:
    """`transform` None: Sub+Abs, which the name leaves out."""
    name = METHODS[method].title + ("" if strategy == "plain" else f" + {strategy}")
    attention = None if strategy == "plain" else DiffAttentionSettings(transform=transform or "sub_abs")
    return Row(name + (f", {TRANSFORMS[transform]}" if transform else ""), method, strategy, attention, figures)


def _of_table_1(method: MethodName, strategy: Strategy, text: str) -> Row:
    return _row(method, strategy, None, _figures(text))


def _of_table_2(method: MethodName, transform: Transform, text: str) -> Row:
    return _row(method, "separate", transform, _figures(text))


def _of_table_3(method: MethodName, figures: Mapping[str, Figures]) -> list[Row]:
    """A method of the paper's comparison, for which it has figures of plain training, and diff attention on top."""
    on_top: list[Row] = []
    if method != "circle":  # its loss needs cosines, joint training has attended distances
        on_top = [_row(method, "joint", None, {})]
    separate = [_row(method, "separate", transform if transform != "sub_abs" else None, {}) for transform in TRANSFORMS]
    return [_row(method, "plain", None, figures), *on_top, *separate]


#: Table 1: two baselines, each plain and with diff attention.
TABLE_1 = (
    _of_table_1("bagtricks", "plain", "94.5/85.9/59.4 | 58.0/56.6/43.8 | 63.4/45.1/12.4"),
    _of_table_1("bagtricks", "joint", "94.5/86.7/61.0 | 64.6/62.5/50.2 | 65.1/45.5/12.4"),
    _of_table_1("bagtricks", "separate", "94.7/85.6/59.2 | 66.6/63.7/51.0 | 64.8/45.7/12.8"),
    _of_table_1("agw", "plain", "95.1/87.8/65.0 | 63.6/62.0/50.3 | 68.3/49.3/14.7"),
    _of_table_1("agw", "joint", "95.2/88.6/66.8 | 70.3/69.2/58.7 | 68.2/50.0/15.3"),
    _of_table_1("agw", "separate", "95.0/86.8/64.3 | 70.6/67.9/56.7 | 68.1/48.5/14.6"),
)

#: Table 2: the input transforms, trained separately. The last mINP of AGW with Sub+Squ is hard to read in print.
TABLE_2 = (
    _of_table_2("bagtricks", "sub", "95.0/86.0/60.0 | 64.5/62.2/49.6 | 65.5/46.5/13.3"),
    _of_table_2("bagtricks", "sub_squ", "94.1/85.4/60.0 | 60.8/56.6/42.7 | 63.1/44.0/11.6"),
    _of_table_2("bagtricks", "sub_abs", "94.7/85.6/59.2 | 66.6/63.7/51.0 | 64.8/45.7/12.8"),
    _of_table_2("agw", "sub", "94.6/86.2/63.3 | 70.1/67.3/56.0 | 67.5/47.8/14.4"),
    _of_table_2("agw", "sub_squ", "94.4/85.7/61.3 | 68.5/66.1/54.3 | 65.8/45.1/11.7"),
    _of_table_2("agw", "sub_abs", "95.0/86.8/64.3 | 70.6/67.9/56.7 | 68.1/48.5/14.6"),
)

#: Tables 3 to 5: other methods. PCB's figures are those with refined part pooling, which is not built here.
TABLE_3 = tuple(
    row
    for method, figures in (
        ("trinet", {"Market-1501": Figures(84.9, 69.1)}),
        ("pcb", {"Market-1501": Figures(93.8, 81.6), "CUHK03": Figures(63.7, 57.5), "MSMT17": Figures(68.2, 40.4)}),
        ("mgn", {"CUHK03": Figures(66.8, 66.0)}),
        ("cbn", {"MSMT17": Figures(72.8, 42.9)}),
        ("osnet", {"Market-1501": Figures(94.8, 86.7)}),
        ("circle", {"Market-1501": Figures(94.2, 84.9)}),
        ("transreid", {"Market-1501": Figures(95.0, 88.2)}),
    )
    for row in _of_table_3(method, figures)  # type: ignore[arg-type]
)


def row_of(card: ModelCard, distances: str) -> Row | None:
    """The paper's row to compare a model's "plain" or "attended" distances with; None if the paper has none.

    Rows are matched by baseline, strategy and transform alone, though the paper's models are ResNet-50 at 256x128 with
    r = 4. Plain distances are compared with the plain baseline, whatever the strategy.
    """
    plain = distances == "plain"
    for row in (*TABLE_1, *TABLE_2, *TABLE_3) if distances in ("plain", "attended") else ():
        same = row.strategy == "plain" if plain else _kind(row) == _kind(card)
        if row.method == card.baseline and same:
            return row if row.figures else None
    return None


def _kind(of: Row | ModelCard) -> tuple[str, str | None]:
    return of.strategy, None if of.diff_attention is None else of.diff_attention.transform


def figures_on(row: Row, dataset: str) -> Figures | None:
    """`row` on the data set with this published name; the paper gives one figure for both forms of CUHK03."""
    return row.figures.get(dataset.split(" ")[0])
