"""The baseline: what one writes by hand with grpc.aio, uvloop and onnxruntime.

It decodes the request, runs the model on the row, applies one threshold and encodes the
response: no validation, no calibration, no costs, no record.

    python benchmarks/baseline.py MODEL.onnx PORT
"""

from __future__ import annotations

import asyncio
import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import grpc
import numpy as np
import onnxruntime
import uvloop

from gateway.v1.decision_pb2 import Action, DecideRequest, DecideResponse
from gateway.v1.decision_pb2_grpc import (
    DecisionServiceServicer,
    add_DecisionServiceServicer_to_server,
)


class Decisions(DecisionServiceServicer):
    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    async def Decide(self, request: DecideRequest, _) -> DecideResponse:  # noqa: N802
        row = np.frombuffer(request.dense, dtype="<f4").reshape(1, -1)
        probability = float(self.session.run(["probabilities"], {"features": row})[0][0, 1])
        action = Action.DECLINE if probability >= 0.5 else Action.APPROVE
        return DecideResponse(
            decision_id=request.transaction_id, action=action, probability=probability
        )


async def main() -> None:
    server = grpc.aio.server(options=(("grpc.max_concurrent_streams", 128),))
    add_DecisionServiceServicer_to_server(Decisions(sys.argv[1]), server)
    port = server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
