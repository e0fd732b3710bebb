"""What a model's configuration says beside BigQuery ML's options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ml.vocabulary import OptionError

ROLES = ("signal", "member", "baseline")
PROMOTIONS = ("automatic", "manual")
WALK_FORWARD = ("expanding", "sliding")


@dataclass(frozen=True)
class Settings:
    """Settings of one model; BigQuery ML has no word for them.

    Parameters
    ----------
    role : {"signal", "member", "baseline"}
        A signal's model is scored and traded; a member is predicted with, for ensembles; a
        baseline is only compared with.
    seed : int
        Of every draw; equal inputs and seeds give equal bytes.
    promotion : {"automatic", "manual"}
        Whether a new version becomes the champion at once or stays a candidate.
    engine : str or None
        The library behind a type that has several; None is the type's first.
    transform : Mapping
        From features to the functions of TRANSFORM.
    key_columns : tuple of str
        Columns that name a row and are no features.
    label_start_column, label_end_column, fold_column : str or None
        When the row closed, when its label was decided, and its walk-forward block.
    walk_forward : {"expanding", "sliding"} or None
        How the training part of each fold grows; None trains no folds.
    embargo_minutes : float
        Time left out between the training part of a fold and its test.
    weight_by_uniqueness : bool
        Weight rows by the average uniqueness of their labels.
    time_decay : float
        Weight of the oldest row where the newest weighs 1; 1 is no decay.
    """

    role: str = "signal"
    seed: int = 0
    promotion: str = "automatic"
    engine: str | None = None
    transform: Mapping[str, str] | None = None
    key_columns: tuple[str, ...] = ()
    label_start_column: str | None = None
    label_end_column: str | None = None
    fold_column: str | None = None
    walk_forward: str | None = None
    embargo_minutes: float = 0
    weight_by_uniqueness: bool = False
    time_decay: float = 1

    @property
    def weighs_by_time(self) -> bool:
        """Whether the weight of a row depends on when its label was decided."""
        return self.weight_by_uniqueness or self.time_decay != 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the settings name, none of them a feature, each once."""
        named = (
            *self.key_columns,
            self.label_start_column,
            self.label_end_column,
            self.fold_column,
        )
        return tuple(dict.fromkeys(column for column in named if column))


def parse(given: Mapping[str, Any]) -> Settings:
    """Check the settings of a model.

    Raises
    ------
    OptionError
        If a setting is unknown (the message lists the valid ones), wrong, or needs another.
    """
    names = [field.name for field in fields(Settings)]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise OptionError(
            f"unknown setting {', '.join(unknown)}; the settings are {', '.join(names)}"
        )
    keys: Sequence[str] = given.get("key_columns") or ()
    settings = Settings(**{**given, "key_columns": tuple(keys)})
    _one_of("role", settings.role, ROLES)
    _one_of("promotion", settings.promotion, PROMOTIONS)
    if settings.walk_forward is not None:
        _one_of("walk_forward", settings.walk_forward, WALK_FORWARD)
        _needs(settings, "walk_forward", "fold_column", "label_start_column", "label_end_column")
    if settings.weight_by_uniqueness:
        _needs(settings, "weight_by_uniqueness", "label_start_column", "label_end_column")
    if settings.time_decay != 1:
        _needs(settings, "time_decay", "label_start_column", "label_end_column")
    if not 0 <= settings.time_decay <= 1:
        raise OptionError(f"time_decay is {settings.time_decay}; a number from 0 to 1 is expected")
    if settings.embargo_minutes < 0:
        raise OptionError(f"embargo_minutes is {settings.embargo_minutes}; it cannot be negative")
    return settings


def _one_of(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise OptionError(f"{name} is {value!r}; one of {', '.join(valid)} is expected")


def _needs(settings: Settings, name: str, *others: str) -> None:
    missing = [other for other in others if getattr(settings, other) is None]
    if missing:
        raise OptionError(f"{name} needs {', '.join(missing)}")
