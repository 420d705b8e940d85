"""Every error that this project raises on purpose.

    UrbanReidError                 exit code 1: the command failed
    ├── UsageError                 exit code 2: the request is invalid
    │   ├── CityError              a wrong city file, or a unit that the city does not have
    │   └── InputError             a file, folder, manifest, time or text that cannot be used
    │       └── PictureError       one picture that cannot be used
    ├── StoreError                 the database refused a statement, or its content is wrong
    │   ├── StoreUnavailable       the database does not answer; worth another try
    │   └── StoreConflict          a row that was read is changed or gone; worth another try from the start
    ├── PicturesUnavailable        the object store of the pictures does not answer; worth another try
    ├── CoreError                  the Re-ID core failed
    │   ├── CoreUnavailable        the core does not answer; worth another try
    │   ├── OutOfDeviceMemory      even one picture at a time does not fit on the device
    │   ├── ModelChanged           another model came into use meanwhile; start again with it
    │   ├── ModelFileError         a model file or card that cannot be trusted or read
    │   └── VectorError            a feature that is NaN, zero, too large or of another width
    ├── NotAllowed                 whoever asks may not see or do this
    ├── FlowError                  a flow run or the Prefect server failed
    └── HomeError                  a data directory that is not writable, full, damaged or another city's

A message says what was wrong, where, and what to do. What to do on the command line is `do`, apart from the fact, where
pages of the console say something else instead.
"""


class UrbanReidError(Exception):
    """`fact`: what was wrong and where, and what to do if that is the same everywhere.

    do: the commands that help; pages say what to do there (`INSTEAD` in `urban_reid/console/words.py`).
    """

    exit_code = 1

    def __init__(self, fact: object = "", *, do: str = "") -> None:
        super().__init__(f"{fact}; {do}" if do else str(fact))
        self.fact, self.do = str(fact), do


class UsageError(UrbanReidError):
    exit_code = 2


class CityError(UsageError):
    pass


class InputError(UsageError):
    pass


class PictureError(InputError):
    pass


class StoreError(UrbanReidError):
    pass


class StoreUnavailable(StoreError):
    pass


class StoreConflict(StoreError):
    pass


class PicturesUnavailable(UrbanReidError):
    pass


class CoreError(UrbanReidError):
    pass


class CoreUnavailable(CoreError):
    pass


class OutOfDeviceMemory(CoreError):
    pass


class ModelChanged(CoreError):
    pass


class ModelFileError(CoreError):
    pass


class VectorError(CoreError):
    pass


class NotAllowed(UrbanReidError):
    pass


class FlowError(UrbanReidError):
    pass


class HomeError(UrbanReidError):
    pass
