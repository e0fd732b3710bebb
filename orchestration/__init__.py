"""The `tapehouse` command and the Dagster definitions."""
