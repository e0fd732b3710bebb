"""The life of a model's versions: candidate, shadow, champion, retired.

Every change is a row of ``registry.stages`` with its reason; nothing is overwritten.
"""

import duckdb

from ml.gates import Gate, gates
from ml.versions import Version, find, versions

STAGES = ("candidate", "shadow", "champion", "retired")
# What a version may become; a champion is retired by its successor only.
MOVES = {
    None: ("candidate", "champion"),
    "candidate": ("shadow", "champion", "retired"),
    "shadow": ("candidate", "champion", "retired"),
    "champion": (),
    "retired": ("candidate", "shadow", "champion"),
}


class PromotionError(RuntimeError):
    """A version may not become what was asked."""


def enter(
    connection: duckdb.DuckDBPyConnection, name: str, version: str, *, promotion: str
) -> None:
    """Give a version that was just trained its stage: champion at once, or candidate.

    A champion that was trained again from other inputs, with the same bytes, stays champion.
    """
    stands = {entry.version: entry.stage for entry in versions(connection, name)}
    if stands.get(version) == "champion":
        return
    if promotion == "automatic":
        _crown(connection, name, version, "trained, promoted automatically")
    else:
        _note(connection, name, version, "candidate", "trained")


def move(
    connection: duckdb.DuckDBPyConnection,
    candidate: Version,
    stage: str,
    *,
    reason: str,
    is_forced: bool = False,
) -> list[Gate]:
    """Give a version another stage; a new champion retires the old one.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse, open to write.
    candidate : Version
        From `find`.
    stage : {"candidate", "shadow", "champion", "retired"}
        What it shall be.
    reason : str
        Recorded with the change.
    is_forced : bool
        Whether a champion is made in spite of gates that do not pass; those are recorded.

    Returns
    -------
    list of Gate
        The conditions of a champion; none of another stage.

    Raises
    ------
    PromotionError
        If a version cannot become that, or a gate does not pass.
    """
    if stage not in MOVES[candidate.stage]:
        raise PromotionError(
            f"{candidate.name} {candidate.version} is {candidate.stage}; it can become "
            f"{', '.join(MOVES[candidate.stage]) or 'nothing else before another is champion'}"
        )
    if stage != "champion":
        _note(connection, candidate.name, candidate.version, stage, reason)
        return []
    judged = gates(connection, candidate)
    failed = [f"{gate.name}: {gate.finding}" for gate in judged if not gate.is_passed]
    if failed and not is_forced:
        raise PromotionError(
            f"{candidate.name} {candidate.version} stays {candidate.stage}; "
            f"not passed: {'; '.join(failed)}. `--force` with a reason overrides"
        )
    if failed:
        reason = f"{reason} (forced in spite of: {'; '.join(failed)})"
    _crown(connection, candidate.name, candidate.version, reason)
    return judged


def rollback(connection: duckdb.DuckDBPyConnection, name: str, *, reason: str) -> Version:
    """Make the champion before the present one champion again and return it.

    Going back once more goes back further. The next training with unchanged inputs keeps this.

    Raises
    ------
    PromotionError
        If there was no champion before.
    """
    present = find(connection, name)
    since = connection.execute(
        "select min(changed_at) from registry.stages "
        "where model_name = ? and model_version = ? and stage = 'champion'",
        [name, present.version],
    ).fetchall()[0][0]
    earlier = connection.execute(
        "select model_version from registry.stages where model_name = ? and stage = 'champion' "
        "and model_version <> ? and changed_at < ? order by changed_at desc limit 1",
        [name, present.version, since],
    ).fetchall()
    if present.stage != "champion" or not earlier:
        raise PromotionError(f"{name} had no champion before {present.version}")
    _crown(connection, name, earlier[0][0], reason)
    return find(connection, name, earlier[0][0])


def _crown(connection: duckdb.DuckDBPyConnection, name: str, version: str, reason: str) -> None:
    for entry in versions(connection, name):
        if entry.stage == "champion" and entry.version != version:
            _note(connection, name, entry.version, "retired", f"replaced by {version}")
    _note(connection, name, version, "champion", reason)


def _note(
    connection: duckdb.DuckDBPyConnection, name: str, version: str, stage: str, reason: str
) -> None:
    connection.execute(
        "insert into registry.stages "
        "values (?, ?, ?, ?, get_current_timestamp() at time zone 'UTC')",
        [name, version, stage, reason],
    )
