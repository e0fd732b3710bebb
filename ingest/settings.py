"""Settings of every Tapehouse process, read from the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parents[1]

Market = Literal["spot", "um"]
Target = Literal["duckdb", "bigquery"]


class Settings(BaseSettings):
    """Where the warehouse is and which exchange feeds it.

    Each field is read from ``TAPEHOUSE_<FIELD>``; lists are written with commas. Everything a
    run leaves behind lies beside the database file.

    Parameters
    ----------
    target : {"duckdb", "bigquery"}
        Which warehouse is meant; dbt's profile reads the same variable.
    database : Path
        The warehouse file; a relative path is taken from the working directory. With BigQuery
        it is the registry of local models and what a run leaves behind lies beside it.
    bigquery_project : str or None
        Google Cloud project; None is that of the credentials, but dbt needs it named.
    bigquery_dataset : str
        Where the tables of the dbt project are.
    bigquery_raw_dataset : str
        Where the raw tables are.
    bigquery_location : str
        Where the datasets lie, such as ``EU``.
    bigquery_maximum_bytes : int
        A query that would be billed for more is refused.
    exchange : str
        Label that lands in the ``exchange`` column.
    exchange_url : str or None
        Base address of REST, WebSocket and archives, such as ``tapehouse simulate`` gives; None is
        the real exchange.
    symbols : list of str
        Symbols to ingest when a command names none.
    market : {"spot", "um"}
        Spot or USD-M futures.
    intervals : list of str
        Kline intervals to ingest when a command names none.
    writer_timeout_s : float
        Seconds to wait for another process to release the warehouse file.
    segments_max_gb : float
        Largest size on disk of the recorder's logs together; what has landed gives way first, and
        then the recorder stops.
    disk_reserve_gb : float
        The recorder stops before the disk has less room than this.

    @property
    remote : Path or None
        The file of services over HTTP; None is ``remote.toml`` beside the warehouse, where it
        exists.
    log_format : {"console", "json"}
        Form of the logs of processes that are left running, on standard error.
    log_level : {"debug", "info", "warning", "error"}
        The least that is logged.
    """

    model_config = SettingsConfigDict(env_prefix="TAPEHOUSE_", frozen=True)

    target: Target = "duckdb"
    database: Path = PROJECT_ROOT / "data" / "tapehouse.duckdb"
    bigquery_project: str | None = None
    bigquery_dataset: str = "tapehouse"
    bigquery_raw_dataset: str = "raw"
    bigquery_location: str = "US"
    bigquery_maximum_bytes: int = 100_000_000_000
    exchange: str = "binance"
    exchange_url: str | None = None
    symbols: Annotated[list[str], NoDecode] = [
        "BTCUSDT",
        "ETHUSDT",
        "SOLUSDT",
        "BNBUSDT",
        "XRPUSDT",
    ]
    market: Market = "um"
    intervals: Annotated[list[str], NoDecode] = ["1m"]
    writer_timeout_s: float = 600.0
    segments_max_gb: float = 50.0
    disk_reserve_gb: float = 2.0
    remote: Path | None = None
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("symbols", "intervals", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("database")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("exchange_url")
    @classmethod
    def _drop_trailing_slash(cls, value: str | None) -> str | None:
        return value.rstrip("/") if value else None

    def environment(self) -> dict[str, str]:
        """Return the environment variables that give another process the same settings."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"TAPEHOUSE_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
            for name, value in values.items()
            if value is not None
        }

    @property
    def place(self) -> str:
        """Where raw rows land, for messages."""
        if self.target == "duckdb":
            return str(self.database)
        project = f"{self.bigquery_project}." if self.bigquery_project else ""
        return f"{project}{self.bigquery_raw_dataset} in BigQuery"

    @property
    def models_directory(self) -> Path:
        """Directory of the model files, each named by its sha256."""
        return self.database.parent / "models"

    @property
    def segments_directory(self) -> Path:
        """Directory of the recorder's logs, one a market."""
        return self.database.parent / "segments"

    @property
    def health_directory(self) -> Path:
        """Directory of the notes that running processes leave for `tapehouse status`."""
        return self.database.parent / "health"

    @property
    def outbox_directory(self) -> Path:
        """Directory of the log of what the scoring loop said."""
        return self.database.parent / "outbox"

    @property
    def remote_file(self) -> Path:
        """The file of services over HTTP."""
        return (self.remote or self.database.parent / "remote.toml").expanduser().absolute()

    @property
    def budgets_directory(self) -> Path:
        """Directory where the requests to services are counted."""
        return self.database.parent / "budgets"

    @property
    def dlt_directory(self) -> Path:
        """Directory where dlt keeps a run's packages until they have landed."""
        return self.database.parent / "dlt"

    @property
    def dagster_directory(self) -> Path:
        """Directory of Dagster's run storage."""
        return self.database.parent / "dagster"

    @property
    def snapshot(self) -> Path:
        """Read-only copy of the warehouse for analysts and dashboards."""
        return snapshot_path(self.database)


def snapshot_path(database: Path) -> Path:
    """Return the path of the read-only copy of a warehouse file."""
    return database.with_name(f"{database.stem}.snapshot.duckdb")
