"""What a user of `tritonclient[grpc]` does, as it comes from PyPI.

It runs in an environment of its own: the client needs another protobuf than the gateway, and
declares the protocol's messages a second time.

    python triton_client.py HOST:PORT REQUESTS.npz

Asks the model `test` for `features`, and prints as JSON what it was told.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException


def asked(name: str, values: np.ndarray, datatype: str) -> triton.InferInput:
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def refused(call: Any) -> str:
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "answered"


async def scores_by_asyncio(address: str, inputs: list[triton.InferInput]) -> np.ndarray:
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        answers = await asyncio.gather(*(client.infer("test", inputs) for _ in range(3)))
    return np.stack([answer.as_numpy("probabilities") for answer in answers])


def main(address: str, path: str) -> dict[str, Any]:
    given = np.load(path, allow_pickle=False)
    rows = asked("features", given["features"], "FP32")
    words = [
        asked(
            name.removeprefix("words."),
            *((values.astype(object), "BYTES") if values.dtype.kind == "U" else (values, "FP32")),
        )
        for name, values in given.items()
        if name.startswith("words.")
    ]
    client = triton.InferenceServerClient(address)
    told: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models": {
            f"{name}:{version}": client.is_model_ready(name, version)
            for name, version in (("test", ""), ("test", "3"), ("test", "4"), ("other", ""))
        },
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata("test", as_json=True),
    }
    wanted = [triton.InferRequestedOutput("probabilities")]
    answer = client.infer(
        "test", [rows], outputs=wanted, request_id="r-1", priority=1, timeout=5_000_000
    )
    told["id"] = answer.get_response().id
    told["scores"] = answer.as_numpy("probabilities").tolist()
    told["compressed"] = (
        client.infer("test", [rows], compression_algorithm="gzip")
        .as_numpy("probabilities")
        .tolist()
    )
    labels = client.infer("words", words)
    told["word scores"] = labels.as_numpy("probabilities").tolist()
    told["labels"] = [text.decode() for text in labels.as_numpy("text").ravel()]

    came: queue.Queue[Any] = queue.Queue()
    for _ in range(5):
        client.async_infer("test", [rows], lambda result, error: came.put((result, error)))
    results = [came.get(timeout=60) for _ in range(5)]
    told["async"] = [result.as_numpy("probabilities").tolist() for result, error in results]
    told["asyncio"] = asyncio.run(scores_by_asyncio(address, [rows])).tolist()

    classes = [triton.InferRequestedOutput("probabilities", class_count=2)]
    told["refused"] = {
        "timeout": refused(lambda: client.infer("slow", [rows], timeout=20_000)),
        "client timeout": refused(lambda: client.infer("slow", [rows], client_timeout=0.05)),
        "name": refused(lambda: client.get_model_metadata("tset")),
        "sequence": refused(lambda: client.infer("test", [rows], sequence_id=7)),
        "classes": refused(lambda: client.infer("test", [rows], outputs=classes)),
    }
    client.close()
    return told


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
