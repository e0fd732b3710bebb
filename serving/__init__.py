"""Scoring: fresh rows through the compiled feature SQL and the registered models."""
