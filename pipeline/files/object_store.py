"""Files of an object store that speaks S3, through fsspec's s3fs.

A put is whole or nothing and lasts when it is answered, so there are no parts. Address, region and credentials of the
store are those of every client of S3: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, a
profile, or the role of the machine.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

from pipeline.files.files import FileInfo
from schemas.errors import PicturesUnavailable, UsageError

_T = TypeVar("_T")
#: Of one request, whose pictures are small. A store that is away is known to be after half a minute.
_CONNECT_S, _READ_S, _TRIES = 5, 10, 4
#: So many are removed by one request, the most that S3 takes.
_AT_ONCE = 1000


class ObjectStore:
    """`Files` below an address such as s3://BUCKET/PREFIX. Safe for threads; connects at the first use."""

    trusts_stamps_s = 10.0  # a look is a request

    def __init__(self, url: str) -> None:
        self.place = url
        self._bucket, _, self._prefix = self.place.removeprefix("s3://").partition("/")

    @property
    def _start(self) -> str:
        """Of the key of each file."""
        return f"{self._prefix}/" if self._prefix else ""

    def where(self, name: str) -> str:
        return f"{self.place}/{name}"

    def read(self, name: str) -> bytes:
        found: bytes = self._ask(lambda: self._s3.cat_file(self.where(name)))
        return found

    def write(self, name: str, data: bytes) -> None:
        try:
            self._ask(lambda: self._s3.pipe_file(self.where(name), data))
        except FileNotFoundError:
            raise self._no_bucket() from None

    def create(self, name: str, data: bytes) -> bool:
        try:
            self._ask(lambda: self._s3.pipe_file(self.where(name), data, mode="create"))
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise self._no_bucket() from None
        return True

    def info(self, name: str) -> FileInfo | None:
        try:
            found = self._ask(lambda: self._s3.info(self.where(name)))
        except FileNotFoundError:
            return None
        if found["type"] != "file":
            return None
        return FileInfo(found["size"], found["LastModified"].timestamp(), found["ETag"])

    def remove(self, name: str, *, overwrite: bool = False) -> bool:
        """An object cannot be overwritten; a bucket that keeps versions keeps this one too."""
        if self.info(name) is None:
            return False
        self._ask(lambda: self._s3.rm_file(self.where(name)))
        return True

    def remove_all(self, names: Sequence[str]) -> int:
        for start in range(0, len(names), _AT_ONCE):
            keys = [{"Key": f"{self._start}{name}"} for name in names[start : start + _AT_ONCE]]
            at = {"Bucket": self._bucket, "Delete": {"Objects": keys, "Quiet": True}}
            try:
                found = self._ask(partial(self._s3.call_s3, "delete_objects", **at))
            except FileNotFoundError:
                raise self._no_bucket() from None
            if errors := found.get("Errors"):  # it was answered, and these stay
                why = f"{errors[0].get('Code')}: {errors[0].get('Message')}"
                raise PicturesUnavailable(f"the object store of {self.place} did not remove {len(errors)} files: {why}")
        return len(names)

    def remove_below(self, folder: str) -> int:
        return self.remove_all(list(self.names(folder)))

    def names(self, below: str = "") -> Iterator[str]:
        return (key for page in self._pages(below) for key in page)

    def is_empty(self) -> bool:
        return not next(self._pages("", at_once=1), [])

    def sweep(self) -> int:
        return 0

    def _pages(self, below: str, at_once: int = 1000) -> Iterator[list[str]]:
        """Names below a folder, a request's answer at a time."""
        start = self._start + (f"{below}/" if below else "")
        at: dict[str, Any] = {"Bucket": self._bucket, "Prefix": start, "MaxKeys": at_once}
        while True:
            try:
                found = self._ask(lambda: self._s3.call_s3("list_objects_v2", **at))
            except FileNotFoundError:
                raise self._no_bucket() from None
            yield [entry["Key"].removeprefix(self._start) for entry in found.get("Contents", ())]
            if not found.get("IsTruncated"):
                return
            at["ContinuationToken"] = found["NextContinuationToken"]

    @cached_property
    def _s3(self) -> Any:
        try:
            from s3fs import S3FileSystem
        except ImportError:
            raise UsageError(
                f"{self.place} is in an object store, for which a package is missing: pip install 'urban-reid[s3]'"
            ) from None
        retries = {"max_attempts": _TRIES, "mode": "standard"}
        limits = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": retries}
        found = S3FileSystem(use_listings_cache=False, config_kwargs=limits)
        found.retries = 1  # its own, around those of the client that it asks, would make them 20
        return found

    def _ask(self, call: Callable[[], _T]) -> _T:
        """The store's answer. What is neither an answer nor a missing file must not be taken for a missing picture."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call()
        except (FileNotFoundError, FileExistsError):
            raise
        except (OSError, BotoCoreError, ClientError) as error:
            raise PicturesUnavailable(f"the object store of {self.place} does not do what is asked: {error}") from None

    def _no_bucket(self) -> PicturesUnavailable:
        return PicturesUnavailable(f"there is no bucket {self._bucket}, or it is not shown to us")
