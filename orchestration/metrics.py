"""What the evaluation tables say, as metadata of their assets."""

from collections.abc import Mapping

from ingest import warehouse
from ingest.settings import Settings

QUERIES: Mapping[str, str] = {
    "trd_evaluation": """
        select strategy, roc_auc, net_bps
        from trd_evaluation
        where model_version = (select any_value(model_version) from trd_verdict)
    """,
    "trd_verdict": "select criterion, value, verdict from trd_verdict",
}


def metrics(settings: Settings, model: str) -> dict[str, float | str]:
    """Return the figures of an evaluation table by name; none for any other model."""
    if model not in QUERIES:
        return {}
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        rows = connection.execute(QUERIES[model]).fetchall()
    if model == "trd_verdict":
        verdict = {"verdict": rows[0][2]} if rows else {}
        return verdict | {name: value for name, value, _ in rows if value is not None}
    return {
        f"{strategy} {name}": value
        for strategy, roc_auc, net_bps in rows
        for name, value in (("AUC", roc_auc), ("net bps", net_bps))
        if value is not None
    }
