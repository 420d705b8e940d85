"""Checks a data set: `urban-reid dataset check`.

A finding is either wrong (figures measured on the data set would not be those of the intended data set) or a note for
its user.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from reid_core.datasets.dataset import SPLITS, Dataset, Progress, Sample, SplitName, in_threads
from reid_core.datasets.person_pictures import JUNK
from reid_core.decoding import decode, read_bytes
from schemas.errors import PictureError

#: A person in a smaller picture can hardly be made out.
SMALL_HEIGHT, SMALL_WIDTH = 32, 12
#: Range of height / width of pictures of one upright person, with a wide margin.
SHAPES = (1.0, 6.0)


@dataclass(frozen=True)
class SplitCounts:
    """Counts of a split. pictures and cameras: without junk; people: without distractors."""

    pictures: int
    people: int
    cameras: int
    junk: int
    distractors: int


@dataclass(frozen=True)
class Finding:
    """One finding. `examples`: names of pictures or numbers of people, at most ten of `count`."""

    kind: str
    wrong: bool
    text: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    source: str
    counts: dict[SplitName, SplitCounts]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        return not any(finding.wrong for finding in self.findings)


def check_dataset(dataset: Dataset, progress: Progress | None = None) -> CheckReport:
    """Checks names, counts, people, queries and every picture of a data set.

    Open it with `strict=False`, so that names that do not parse become findings. `progress` is called with
    (done, total) pictures.
    """
    pictures = _look_at_pictures(dataset, progress)
    findings = [
        *_unusable(dataset, pictures),
        *_published_counts(dataset),
        *_people(dataset),
        *_queries(dataset),
        *_duplicates(pictures),
        *_odd_pictures(pictures),
    ]
    findings.sort(key=lambda finding: not finding.wrong)
    return CheckReport(dataset.source, {name: _counts(dataset, name) for name in SPLITS}, tuple(findings))


def _counts(dataset: Dataset, name: SplitName) -> SplitCounts:
    found = dataset.counts(name)
    shown = [sample for sample in dataset.split(name) if sample.identity != JUNK]
    distractors = sum(sample.identity == dataset.distractor for sample in shown) if name != "train" else 0
    cameras = len({sample.camera for sample in shown})
    return SplitCounts(found.pictures, found.people, cameras, len(dataset.split(name)) - len(shown), distractors)


class _Picture(NamedTuple):
    split: SplitName
    sample: Sample
    file: bytes  # digest of its file; of its pixels if it has no file
    pixels: bytes  # digest of its size and pixels
    size: tuple[int, int]  # height, width
    plain: bool  # all pixels have one color
    fault: str  # why it cannot be read; the fields above are then empty


def _look_at_pictures(dataset: Dataset, progress: Progress | None) -> list[_Picture]:
    samples = [(name, sample) for name in SPLITS for sample in dataset.split(name)]
    found: list[_Picture] = []
    with in_threads(lambda pair: _look_at(*pair), samples) as pictures:
        for picture in pictures:
            found.append(picture)
            if progress:
                progress(len(found), len(samples))
    return found


def _look_at(split: SplitName, sample: Sample) -> _Picture:
    try:
        data = read_bytes(sample.path) if sample.path else b""
        picture = decode(data) if sample.path else sample.read()
    except FileNotFoundError:
        return _Picture(split, sample, b"", b"", (0, 0), False, "no such file")
    except (OSError, PictureError) as error:
        return _Picture(split, sample, b"", b"", (0, 0), False, str(error))
    height, width = picture.shape[:2]
    pixels = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).digest()
    file = hashlib.sha256(data).digest() if sample.path else pixels
    return _Picture(split, sample, file, pixels, (height, width), bool((picture == picture[0, 0]).all()), "")


def _unusable(dataset: Dataset, pictures: list[_Picture]) -> Iterator[Finding]:
    if dataset.wrong:
        yield _finding("name", True, "{n} with a name or list entry that cannot be used", list(dataset.wrong))
    unread = [f"{picture.sample.name}: {picture.fault}" for picture in pictures if picture.fault]
    if unread:
        yield _finding("unreadable", True, "{n} that cannot be read", unread)
    for name in SPLITS:
        if not dataset.split(name):
            yield Finding("empty", name != "train", f"the {_CALLED[name]} split is empty", 0)


def _published_counts(dataset: Dataset) -> Iterator[Finding]:
    if dataset.published is None:
        return
    for name in SPLITS:
        here, known = dataset.counts(name), getattr(dataset.published, name)
        if here != known:
            yield Finding(
                "counts",
                True,
                f"{_CALLED[name]}: {here.pictures:,} pictures of {here.people:,} people, but {dataset.published.name} "
                f"has {known.pictures:,} of {known.people:,}",
                abs(here.pictures - known.pictures),
            )


def _people(dataset: Dataset) -> Iterator[Finding]:
    cameras: dict[int, set[int]] = defaultdict(set)
    for sample in dataset.train:
        if sample.identity != JUNK:
            cameras[sample.identity].add(sample.camera)
    tested = {sample.identity for sample in (*dataset.query, *dataset.gallery)} - {JUNK, dataset.distractor}
    both = sorted(tested & set(cameras))
    if both:
        yield _finding(
            "leak",
            True,
            "{n} both to train on and to test, unless training and test people are numbered each on their own",
            both,
            "identity is|identities are",
        )
    single = sorted(person for person, seen in cameras.items() if len(seen) == 1)
    if single:
        said = "{n} to train on under one camera only: nothing is learned across cameras from them"
        yield _finding("one camera", False, said, single, "identity|identities")
    pictures = Counter(sample.identity for sample in dataset.train if sample.identity != JUNK)
    alone = sorted(person for person, shown in pictures.items() if shown == 1)
    if alone:
        said = "{n} to train on with a single picture: a batch repeats it"
        yield _finding("one picture", False, said, alone, "identity|identities")


def _queries(dataset: Dataset) -> Iterator[Finding]:
    """Queries that ranking skips: junk, not in the gallery, or in the gallery under the query's own camera only."""
    cameras: dict[int, set[int]] = defaultdict(set)
    for sample in dataset.gallery:
        cameras[sample.identity].add(sample.camera)
    junk, absent, own = [], [], []
    for sample in dataset.query:
        if sample.identity == JUNK:
            junk.append(sample.name)
        elif sample.identity not in cameras:
            absent.append(sample.name)
        elif cameras[sample.identity] == {sample.camera}:
            own.append(sample.name)
    for kind, names, why in (
        ("junk query", junk, "the query is junk"),
        ("absent", absent, "the gallery does not show the person"),
        ("own camera", own, "the gallery shows the person under the query's own camera only"),
    ):
        if names:
            yield _finding(kind, True, f"{{n}} with no match, because {why}", names, "query|queries")


def _duplicates(pictures: list[_Picture]) -> Iterator[Finding]:
    """Pictures that are there more than once, with equal bytes or only equal pixels."""
    groups: dict[bytes, list[_Picture]] = defaultdict(list)
    for picture in pictures:
        if not picture.fault:
            groups[picture.pixels].append(picture)
    leaked, labeled, asked, repeated = [], [], [], []
    for group in (group for group in groups.values() if len(group) > 1):
        how = "same file" if len({picture.file for picture in group}) == 1 else "same pixels"
        first, second = group[0], next((other for other in group if other.split != group[0].split), group[1])
        line = (
            f"{first.sample.name} and {second.sample.name} ({how}{f', {len(group)} times' if len(group) > 2 else ''})"
        )
        splits = {picture.split for picture in group}
        if "train" in splits and len(splits) > 1:
            leaked.append(line)
        elif len({picture.sample.identity for picture in group}) > 1:
            labeled.append(line)
        elif len(splits) > 1 and len({picture.sample.camera for picture in group}) > 1:
            asked.append(line)
        else:
            repeated.append(line)
    for kind, wrong, lines, said, noun in (
        ("duplicate across splits", True, leaked, "{n} both to train on and to test", "picture is|pictures are"),
        ("duplicate of two people", True, labeled, "{n} with two identities", "picture|pictures"),
        (
            "duplicate under two cameras",
            True,
            asked,
            "{n} both query and gallery, under different cameras",
            "picture is|pictures are",
        ),
        (
            "duplicate",
            False,
            repeated,
            "{n} there more than once, as one person under one camera",
            "picture is|pictures are",
        ),
    ):
        if lines:
            yield _finding(kind, wrong, said, lines, noun)


def _odd_pictures(pictures: list[_Picture]) -> Iterator[Finding]:
    tiny, odd, plain = [], [], []
    for picture in (picture for picture in pictures if not picture.fault):
        height, width = picture.size
        line = f"{picture.sample.name} ({height} x {width})"
        if height < SMALL_HEIGHT or width < SMALL_WIDTH:
            tiny.append(line)
        elif not SHAPES[0] <= height / width <= SHAPES[1]:
            odd.append(line)
        if picture.plain:
            plain.append(line)
    for kind, lines, said in (
        ("tiny", tiny, f"{{n}} under {SMALL_HEIGHT} x {SMALL_WIDTH} pixels (height x width)"),
        ("odd shape", odd, f"{{n}} whose height is not {SHAPES[0]:g} to {SHAPES[1]:g} times the width"),
        ("plain", plain, "{n} of one color all over"),
    ):
        if lines:
            yield _finding(kind, False, said, lines)


_CALLED: dict[SplitName, str] = {"train": "training", "query": "query", "gallery": "gallery"}
_EXAMPLES = 10


def _finding(
    kind: str, wrong: bool, said: str, found: list[str] | list[int], noun: str = "picture|pictures"
) -> Finding:
    """A finding whose text is `said` with `{n}` replaced by the count and its noun ("one|many")."""
    one, many = noun.split("|")
    text = said.format(n=f"{len(found):,} {one if len(found) == 1 else many}")
    return Finding(kind, wrong, text, len(found), tuple(str(example) for example in found[:_EXAMPLES]))
