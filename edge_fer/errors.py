"""The errors a user can cause. `str(error)` is the one line shown: expected, got, what to do."""

from __future__ import annotations

from typing import ClassVar


class EdgeFerError(Exception):
    """Base of every error of this project; `exit_code` is what the command line returns for it."""

    exit_code: ClassVar[int] = 1


class InputError(EdgeFerError):
    """A picture, a folder, a data set or a path is not what it has to be."""


class TooManyPixelsError(InputError):
    """A picture that would take more memory than is given to one."""


class BundleError(EdgeFerError):
    """A bundle that cannot be read or cannot be trusted."""


class EngineError(EdgeFerError):
    """An engine that is not installed, does not load, or is not the one the bundle needs."""


class MissingEngineError(EngineError):
    """An engine whose library does not import here.

    Attributes:
        engine: onnxruntime, openvino or tflite.
        reason: what the import said, on one line.
        remedy: the command that installs the library.
    """

    def __init__(self, engine: str, reason: str, remedy: str, needed_by: str | None = None) -> None:
        self.engine, self.reason, self.remedy = engine, reason, remedy
        text = f"the engine {engine} does not import ({reason})"
        text += f", and {needed_by} needs it" if needed_by else ""
        text += f": install it with `{remedy}`"
        text += (
            ", or name a bundle of another engine (`edge-fer doctor` shows which are here)"
            if needed_by
            else ""
        )
        super().__init__(text)


class DetectorError(EdgeFerError):
    """A face detector that is not installed or whose model file is not usable."""


class CheckpointError(EdgeFerError):
    """A checkpoint that is damaged or belongs to another network."""


class CalibrationError(EdgeFerError):
    """Calibration data that is too small or does not fit."""


class RecipeError(EdgeFerError):
    """A training recipe with an unknown key or an impossible value."""


class TrainingError(EdgeFerError):
    """A training run that cannot start, go on or be resumed."""


class MissingPackageError(EdgeFerError):
    """A stage was called whose packages are not installed; the text names the extra."""

    @classmethod
    def of_stage(cls, stage: str, error: ImportError, extra: str) -> MissingPackageError:
        """Return what to say of a package that a stage could not import: it is missing, or does not load."""
        missing = isinstance(error, ModuleNotFoundError) and error.name is not None
        reason = str(error).partition("\n")[0]
        what = f"the package {error.name}" if missing else f"a package that does not load here ({reason})"
        return cls(f"{stage} needs {what}: pip install -c constraints.txt -e '.[{extra}]'")


class BrokerError(EdgeFerError):
    """An MQTT broker that cannot be reached, was lost, or does not let one in."""


class UsageError(EdgeFerError):
    """The command line was used wrongly."""

    exit_code: ClassVar[int] = 2


class GateFailed(EdgeFerError):
    """A parity gate failed; the report was written, the bundle was not."""

    exit_code: ClassVar[int] = 3
