"""Models that BigQuery imports as ONNX files: what dbt is told of them, and their tensors."""

from typing import Any

import numpy as np
import onnx

from ml import onnx_export
from ml.trainers import Dense, Task

# What `tapehouse models export` tells of any model that is imported.
KNOWN = {
    "training_info": [[0, 1, 0.69, 0.7, None, 12], [0, 2, 0.6, 0.65, 0.1, 11]],
    "trials": [[1, '{"l2_reg": 0.5}', '{"roc_auc": 0.6}', 0.6, 0.65, "SUCCEEDED", None, True]],
    "feature_info": [
        ["flow", -3.0, 3.5, 0.01, 0.0, 1.0, None, 7, None],
        ["noise", None, None, None, None, None, None, 9, None],
    ],
}
# What `tapehouse models export` tells of every model of the project, and of what each learns.
FEATURES = {"ml_order_flow_stacked": ["boosted_probability", "forest_probability"]}
MODELS = {
    name: {
        "path": f"gs://models/{name}.onnx",
        "version": "1",
        "features": FEATURES.get(name, ["taker_buy_ratio", "hour_sin"]),
        "classes": ["false", "true"],
        "train_end_at": "2025-06-01 00:00:00.000000+00",
        "validation_end_at": "2025-06-02 00:00:00.000000+00",
        "trial_count": 2,
        "feature_importance": [["hour_sin", 12, 3.5, 1e-7]],
        "global_explanations": [[None, "hour_sin", 0.5]],
        "calibration": [["platt", 1.1, 0.0]],
        **KNOWN,
    }
    for name in (
        *("ml_order_flow", "ml_order_flow_forest", "ml_order_flow_linear"),
        *("ml_order_flow_network", "ml_order_flow_shuffled", "ml_order_flow_stacked"),
    )
}


def exported(task: Task, labels: str) -> dict[str, dict[str, str]]:
    """Columns that BigQuery makes of the tensors of a model exported here."""
    layer = Dense((np.ones((2, 1)),), (np.zeros(1),))
    model = onnx.load_from_string(onnx_export.export(layer, task, features=2, labels=labels))
    kinds = {onnx.TensorProto.INT64: "INT64", onnx.TensorProto.STRING: "STRING"}

    def columns(entries: Any) -> dict[str, str]:
        found = {}
        for entry in entries:
            tensor = entry.type.tensor_type
            kind = kinds.get(tensor.elem_type, "FLOAT64")
            found[entry.name] = kind if len(tensor.shape.dim) == 1 else f"ARRAY<{kind}>"
        return found

    return {"inputs": columns(model.graph.input), "outputs": columns(model.graph.output)}
