"""The only door to ONNX Runtime, opened with its telemetry off.

Its Linux wheels report model and graph names to their maker since 1.29 unless this
variable is set before the import.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime import InferenceSession as InferenceSession

onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(4)  # its errors show values; all are raised, too


def session_options() -> onnxruntime.SessionOptions:
    """Return options for one caller on one core: one thread, and no spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def inference_session(model: bytes | Path) -> InferenceSession:
    """Open a session on an ONNX file or its bytes. Raises what ONNX Runtime raises."""
    return InferenceSession(
        model,
        sess_options=session_options(),
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # it would print to stdout, and try the same once more
    )
