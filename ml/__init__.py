"""In-database machine learning: trainers, ONNX export, registry and the dbt-duckdb plugin."""
