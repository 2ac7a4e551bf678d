"""The Open Inference Protocol: the models themselves, over the sessions that decide."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import venv
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import catalogue
import grpc
import numpy as np
import onnxruntime
import pytest
from conftest import Running, Serve
from corpus import Foreign, N, foreign
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from test_annex import HEAVY, heavy
from test_fronts import decide, patient, raw

from gateway.inference import open_inference_pb2 as pb
from gateway.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from gateway.model import Arm, Classifier, Generation
from gateway.model.session import Session, classifier_on, open_session
from gateway.product import UNSEEN_TEXT
from gateway.serve import worker
from gateway.serve.fronts.front import MODEL_INFER
from gateway.serve.hall.admit import Arrival
from gateway.serve.inference import inference as inference_module
from gateway.serve.inference.inference import Inference
from gateway.serve.inference.offered import DATATYPES, offered
from gateway.serve.inference.tensors import ROWS_MAX, read
from gateway.v1 import decision_pb2

SERVICE = "inference.GRPCInferenceService"
TRITONCLIENT = "tritonclient[grpc]==2.73.0"
Run = Callable[[Sequence[str], Any], list[Any]]


def stub(running: Running) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(running.channel)


def asked(
    rows: Any = ((20.0, 1.0, 0.0),), *, model: str = "test", **parameters: int
) -> pb.ModelInferRequest:
    """Return a call of the base product's model."""
    array = np.asarray(rows, dtype="<f4")
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="features", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request


def arrays_in(answer: pb.ModelInferResponse) -> dict[str, Any]:
    """Read a response by the protocol's rules, with no code of the gateway."""
    dtypes = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}
    read: dict[str, Any] = {}
    for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            texts, at = [], 0
            while at < len(content):
                size = int.from_bytes(content[at : at + 4], "little")
                texts.append(content[at + 4 : at + 4 + size].decode())
                at += 4 + size
            array = np.array(texts, dtype=object)
        else:
            array = np.frombuffer(content, dtype=dtypes[output.datatype])
        read[output.name] = array.reshape(tuple(output.shape))
    return read


def refused(running: Running, request: pb.ModelInferRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        stub(running).ModelInfer(request, timeout=10)
    return caught.value


def violations(error: grpc.RpcError) -> dict[str, str]:
    status = rpc_status.from_call(error)
    assert status is not None
    bad = BadRequest()
    assert status.details[0].Unpack(bad)
    return {one.field: one.description for one in bad.field_violations}


def running_by(generation: Generation, run: Run, *, name: str = "test") -> Generation:
    """Return a generation whose bare session runs by `run`; its decisions are as they were."""
    session = replace(generation.champion.session, run=run)
    product = generation.product.model_copy(update={"name": name})
    return replace(
        generation, product=product, champion=replace(generation.champion, session=session)
    )


class Gate:
    """A model that waits, and what it was asked: the first number of each call's first row."""

    def __init__(self, generation: Generation, *, name: str = "test") -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.ran: list[float] = []
        self._run = generation.champion.session.run
        self.generation = running_by(generation, self._wait, name=name)

    def _wait(self, names: Sequence[str], arrays: Any) -> list[Any]:
        self.ran.append(float(arrays["features"][0, 0]))
        self.entered.set()
        assert self.open.wait(60)
        return self._run(names, arrays)


@pytest.fixture
def gate(generation: Generation) -> Gate:
    return Gate(generation)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> list[Inference]:
    """The services of the workers that the test starts."""
    made: list[Inference] = []

    def recorded(front: Any) -> Inference:
        made.append(Inference(front))
        return made[-1]

    monkeypatch.setattr(worker, "Inference", recorded)
    return made


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells: a thread of the gateway's that has nothing to say."""
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.002)


# What it answers.


def test_all_methods_answer(serve: Serve, generation: Generation) -> None:
    with serve() as running:
        ask = stub(running)
        assert ask.ServerLive(pb.ServerLiveRequest()).live
        assert ask.ServerReady(pb.ServerReadyRequest()).ready
        server = ask.ServerMetadata(pb.ServerMetadataRequest())
        said = ask.ModelMetadata(pb.ModelMetadataRequest(name="test"))
        ready = {
            (name, version): ask.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready
            for name, version in (("test", ""), ("test", "3"), ("test", "2"), ("tset", ""))
        }
        answer = ask.ModelInfer(asked([[20, 1, 0], [500, 2, 1]]))
        check = health_pb2_grpc.HealthStub(running.channel).Check
        health = check(health_pb2.HealthCheckRequest(service=SERVICE)).status
    assert server.name == "decision-gateway"
    assert server.version
    assert (said.name, said.versions, said.platform) == ("test", ["3"], "onnxruntime_onnx")
    tensors = [(one.name, one.datatype, list(one.shape)) for one in (*said.inputs, *said.outputs)]
    assert tensors == [("features", "FP32", [-1, 3]), ("probabilities", "FP32", [-1, 2])]
    assert list(ready.values()) == [True, True, False, False]
    assert (answer.model_name, answer.model_version) == ("test", "3")
    rows = np.array([[20, 1, 0], [500, 2, 1]], dtype=np.float32)
    given = arrays_in(answer)["probabilities"][:, 1]
    assert given.tolist() == generation.champion.score(rows)
    assert health == health_pb2.HealthCheckResponse.SERVING


def test_typed_contents_and_raw_ones_are_the_same(serve: Serve) -> None:
    with serve() as running:
        by_bytes = asked([[20, 1, 0]])
        typed = asked([[20, 1, 0]])
        del typed.raw_input_contents[:]
        typed.inputs[0].contents.fp32_contents.extend([20, 1, 0])
        typed.id = "mine"
        typed.outputs.add(name="probabilities")
        one, other = stub(running).ModelInfer(by_bytes), stub(running).ModelInfer(typed)
    assert one.raw_output_contents == other.raw_output_contents
    assert (one.id, other.id) == ("", "mine")


FOREIGN = (
    *("mixed-widths", "one-hot-pipeline", "text-matrix", "bool-pipeline", "ordinal-pipeline"),
    *("random-forest-zipmap", "random-forest-words", "label-text", "several-outputs"),
    *("fixed-eight", "no-batch", "double-splits", "int64-matrix", "half-precision"),
    *("int32-inputs", "lstm-window", "free-width", "lightgbm-matrix", "xgboost-like"),
)


def output_of(one: Foreign) -> tuple[str, int | str | None]:
    """Return an output's name, and its column or class."""
    name, _, column = one.output.removesuffix("]").partition("[")
    return name, (int(column) if column.isdigit() else column or None)


def classifier_of(one: Foreign) -> Classifier:
    """Open a model of the corpus with the columns of its table."""
    columns = []
    for name in one.features:
        values = [value for value in one.rows[name] if value is not None]
        texts = tuple(sorted(set(values))) if isinstance(values[0], str) else None
        columns.append(None if texts is None else (*texts, UNSEEN_TEXT))
    return classifier_on(
        open_session(one.model, one.name),
        subject=one.name,
        output=output_of(one),
        columns=columns,
        example=[0.0] * len(columns),
    )


def table_of(one: Foreign, classifier: Classifier, rows: slice) -> dict[str, Any]:
    """Return a model's own inputs for some rows of its table."""
    dtypes = {port.name: DATATYPES[port.type][1] for port in classifier.session.inputs}
    arrays: dict[str, Any] = {}
    for feed in classifier.feeds.inputs:
        names = one.features[feed.start : feed.stop]
        lists = [[np.nan if v is None else v for v in one.rows[name][rows]] for name in names]
        stacked = np.array(lists, dtype=object).T.astype(dtypes[feed.name])
        batch = (len(stacked),) if classifier.feeds.batched else ()
        arrays[feed.name] = stacked.reshape(*batch, *feed.tail)
    return arrays


def asked_with(model: str, arrays: dict[str, Any], classifier: Classifier) -> pb.ModelInferRequest:
    types = {port.name: port.type for port in classifier.session.inputs}
    request = pb.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        datatype = DATATYPES[types[name]][0]
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if datatype == "BYTES":
            parts = [text.encode() for text in array.ravel()]
            content = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
        else:
            content = array.tobytes()
        request.raw_input_contents.append(content)
    return request


def test_every_kind_of_model_gives_what_a_bare_session_gives(
    serve: Serve, generation: Generation
) -> None:
    """To the last bit, every output; and the one that is declared is what the product scores."""
    kinds = {name: foreign(name) for name in FOREIGN}
    classifiers = {name: classifier_of(one) for name, one in kinds.items()}
    products = [
        replace(
            generation,
            product=generation.product.model_copy(update={"name": name}),
            champion=classifier,
        )
        for name, classifier in classifiers.items()
    ]
    with serve(products[0], *products[1:]) as running:
        for name, one in kinds.items():
            classifier = classifiers[name]
            count = classifier.feeds.batch or 40
            declared, column = output_of(one)
            arrays = table_of(one, classifier, slice(0, count))
            request = asked_with(name, arrays, classifier)
            answer = stub(running).ModelInfer(request, timeout=10)
            said = stub(running).ModelMetadata(pb.ModelMetadataRequest(name=name))
            bare = onnxruntime.InferenceSession(one.model, providers=["CPUExecutionProvider"])
            given = arrays_in(answer)
            assert (
                list(given)
                == [port.name for port in bare.get_outputs()]
                == [output.name for output in said.outputs]
            )
            for told, output in zip(said.outputs, answer.outputs, strict=True):
                fits = [d in (-1, dim) for d, dim in zip(told.shape, output.shape, strict=False)]
                assert all(fits), (name, told.name)
                assert len(told.shape) in (0, len(output.shape)), (name, told.name)
            for output, expected in zip(answer.outputs, bare.run(None, arrays), strict=True):
                array = given[output.name]
                if isinstance(expected, list):
                    classes = json.loads(output.parameters["classes"].string_param)
                    expected = [[row[key] for key in classes] for row in expected]
                    column = classes.index(column)
                assert np.array_equal(array, np.asarray(expected)), (name, output.name)
                if output.name == declared and one.kind != "label":
                    scores = array.reshape(count, -1)[:, int(column or 0)]
                    assert scores.astype(float) == pytest.approx(one.score()[:count], rel=2e-6)


def test_a_challenger_is_served_by_its_own_name(serve: Serve, generation: Generation) -> None:
    other = classifier_on(
        open_session(catalogue.logistic_model((0.0, 0.0, 0.0), 2.0), "other"),
        subject="other",
        output=("probabilities", 1),
        columns=[None] * 3,
        name="v2",
    )
    shadow = Arm("v2", "shadow", 1.0, other, generation.policy, None, generation.trial)
    with serve(replace(generation, challengers=(shadow,))) as running:
        names = ("test", "test/v1", "test/v2")
        answers = [stub(running).ModelInfer(asked(model=name)) for name in names]
        error = refused(running, asked(model="test/v3"))
    scores = [arrays_in(answer)["probabilities"][0, 1] for answer in answers]
    assert scores[0] == scores[1]
    assert scores[2] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert [answer.model_name for answer in answers] == list(names)
    assert error.code() is grpc.StatusCode.NOT_FOUND


# What it refuses.


def test_what_is_not_served_is_not_found(serve: Serve) -> None:
    with serve() as running:
        wrong_name = refused(running, asked(model="tset-12345"))
        versioned = asked()
        versioned.model_version = "12345"
        wrong_version = refused(running, versioned)
        with pytest.raises(grpc.RpcError) as caught:
            stub(running).ModelMetadata(pb.ModelMetadataRequest(name="tset"))
    assert {wrong_name.code(), wrong_version.code(), caught.value.code()} == {
        grpc.StatusCode.NOT_FOUND
    }
    assert wrong_version.details() == "no such version of test; served: 3"
    assert caught.value.details() == "no such model. Did you mean test?"
    assert "12345" not in wrong_name.details() + wrong_version.details()


def test_all_violations_stand_in_one_answer_and_no_value_does(serve: Serve) -> None:
    request = pb.ModelInferRequest(model_name="test")
    request.inputs.add(name="features", datatype="FP64", shape=[1, 31337])
    request.inputs.add(name="secret-31337", datatype="FP32", shape=[1])
    request.outputs.add(name="secret-31337")
    request.parameters["priority"].string_param = "31337"
    request.parameters["timeout"].int64_param = -31337
    request.parameters["sequence_id"].int64_param = 31337
    request.inputs[0].parameters["shared_memory_region"].string_param = "31337"
    request.raw_input_contents.append(b"31337")
    with serve() as running:
        error = refused(running, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    wrong = violations(error)
    assert wrong.keys() == {
        *("parameters", "parameters[priority]", "parameters[timeout]", "raw_input_contents"),
        *("inputs[0].parameters", "inputs[0].datatype", "inputs[0].shape", "inputs[1].name"),
        "outputs[0].name",
    }
    assert wrong["inputs[0].shape"] == f"must be [rows, 3] with 1 to {ROWS_MAX} rows"
    assert wrong["inputs[1].name"] == "is no input of the model: features"
    assert "31337" not in error.details() + str(wrong)


def _without_raw(request: pb.ModelInferRequest) -> pb.InferTensorContents:
    del request.raw_input_contents[:]
    return request.inputs[0].contents


def _short(request: pb.ModelInferRequest) -> None:
    request.raw_input_contents[0] = b"\0" * 11


def _twice(request: pb.ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _none(request: pb.ModelInferRequest) -> None:
    del request.inputs[:]
    del request.raw_input_contents[:]


def _huge(request: pb.ModelInferRequest) -> None:
    request.inputs[0].shape[0] = 2**62


def _empty(request: pb.ModelInferRequest) -> None:
    request.inputs[0].shape[0] = 0
    request.raw_input_contents[0] = b""


def _elsewhere(request: pb.ModelInferRequest) -> None:
    _without_raw(request).fp64_contents.extend([1.0, 2.0, 3.0])


def _few(request: pb.ModelInferRequest) -> None:
    _without_raw(request).fp32_contents.extend([1.0, 2.0])


def _both(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_short, "raw_input_contents[0]"),
        (_twice, "inputs[1].name"),
        (_none, "inputs"),
        (_huge, "inputs[0].shape"),
        (_empty, "inputs[0].shape"),
        (_elsewhere, "inputs[0].contents"),
        (_few, "inputs[0].contents"),
        (_both, "inputs[0].contents"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    spoil: Callable[[pb.ModelInferRequest], None], field: str, generation: Generation
) -> None:
    model = offered([generation])["test"]
    request = asked()
    assert read(request, model)[1] == []
    spoil(request)
    assert [one.field for one in read(request, model)[1]] == [field]


def _model_of(name: str, generation: Generation) -> Any:
    return offered([replace(generation, champion=classifier_of(foreign(name)))])["test"]


def test_texts_and_whole_numbers_are_read_strictly(generation: Generation) -> None:
    texts = _model_of("text-matrix", generation)
    sound = pb.ModelInferRequest()
    sound.inputs.add(name="words", datatype="BYTES", shape=[1, 3])
    typed = sound.inputs[0].contents.bytes_contents
    typed.extend([b"chip", "Köln".encode(), b""])
    arrays, wrong = read(sound, texts)
    assert not wrong
    assert arrays.arrays["words"].tolist() == [["chip", "Köln", ""]]
    typed[1] = b"\xff\xfe"
    assert "UTF-8" in read(sound, texts)[1][0].description
    _without_raw(sound).Clear()
    for content in (b"", b"\1\0\0\0", b"\xff\xff\xff\xff" * 3, b"\0" * 13, b"\0" * 16):
        del sound.raw_input_contents[:]
        sound.raw_input_contents.append(content)
        sound.inputs[0].ClearField("contents")
        assert [one.field for one in read(sound, texts)[1]] == ["raw_input_contents[0]"], content

    truth = _model_of("bool-pipeline", generation)
    request = asked_with(
        "test", table_of(foreign("bool-pipeline"), truth.classifier, slice(0, 2)), truth.classifier
    )
    place = next(i for i, one in enumerate(request.inputs) if one.datatype == "BOOL")
    request.raw_input_contents[place] = b"\2\0"
    array = read(request, truth)[0].arrays[request.inputs[place].name]
    assert array.dtype == np.bool_
    assert array.view(np.uint8).tolist() == [[1], [0]], "a byte is true or false, whatever its bits"


def test_a_number_beyond_its_datatype_is_refused(generation: Generation) -> None:
    model = _model_of("int32-inputs", generation)
    sound = asked_with(
        "test", table_of(foreign("int32-inputs"), model.classifier, slice(0, 1)), model.classifier
    )
    small = [one for one in model.inputs.values() if one.datatype in ("INT8", "INT32", "INT64")]
    assert small
    eight = replace(
        model,
        inputs={
            n: replace(t, datatype="INT8", dtype=np.dtype("i1")) for n, t in model.inputs.items()
        },
    )
    del sound.raw_input_contents[:]
    for one in sound.inputs:
        one.datatype = "INT8"
        count = int(np.prod(one.shape))
        one.contents.int_contents.extend([127] * count)
    assert read(sound, eight)[1] == []
    sound.inputs[0].contents.int_contents[0] = 128
    (wrong,) = read(sound, eight)[1]
    assert wrong == ("inputs[0].contents", "has a number that INT8 cannot hold")


def test_half_precision_comes_raw_only(generation: Generation) -> None:
    model = _model_of("half-precision", generation)
    arrays = table_of(foreign("half-precision"), model.classifier, slice(0, 1))
    request = asked_with("test", arrays, model.classifier)
    assert read(request, model)[1] == []
    _without_raw(request).fp32_contents.extend([0.0] * arrays[request.inputs[0].name].size)
    assert "send it in raw_input_contents" in read(request, model)[1][0].description


def test_garbage_is_refused_and_the_worker_goes_on(serve: Serve) -> None:
    chance, sound = random.Random(5), asked().SerializeToString()
    methods = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
    fair = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    with serve() as running:
        for method in (*methods, "ModelInfer"):
            error = raw(running, b"\xff\xff\xff", f"/{SERVICE}/{method}")
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == f"not a {method}Request"
        infer = running.channel.unary_unary(f"/{SERVICE}/ModelInfer")
        calls = []
        for _ in range(100):
            spoilt = bytearray(sound)
            for _ in range(chance.randrange(1, 4)):
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
            calls.append(infer.future(bytes(spoilt), timeout=20))
        for call in calls:
            error = call.exception()
            assert error is None or error.code() in fair, error
        assert stub(running).ServerLive(pb.ServerLiveRequest()).live


def test_what_is_taken_is_what_the_model_takes(generation: Generation) -> None:
    """Of thousands of requests spoilt in a few bytes: no fault, and no array of another form."""
    chance = random.Random(11)
    kinds = [foreign(name) for name in ("mixed-widths", "text-matrix", "int64-matrix")]
    taken = 0
    for one in kinds:
        model = _model_of(one.name, generation)
        arrays = table_of(one, model.classifier, slice(0, 3))
        sound = asked_with("test", arrays, model.classifier).SerializeToString()
        for _ in range(1_000):
            spoilt = bytearray(sound)
            for _ in range(chance.randrange(1, 3)):
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
            try:
                request = pb.ModelInferRequest.FromString(bytes(spoilt))
            except DecodeError:
                continue
            asks, wrong = read(request, model)
            if wrong:
                assert all(violation.field for violation in wrong)
                continue
            taken += 1
            assert {name: (array.dtype, array.shape) for name, array in asks.arrays.items()} == {
                name: (array.dtype, array.shape) for name, array in arrays.items()
            }
            assert set(asks.outputs) <= set(model.outputs)
    assert taken > 300, "most of a request are its numbers"


def test_a_model_that_raises_is_told_apart_and_no_value_is_shown(
    serve: Serve, generation: Generation, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(names: Sequence[str], arrays: Any) -> list[Any]:
        raise RuntimeError("indices element out of data bounds, idx=31337")

    with serve(running_by(generation, broken)) as running:
        error = refused(running, asked())
        assert decide(running, catalogue.request(running.fingerprint)).stand_in == 0
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "31337" not in error.details() + caplog.text


def test_what_the_gateway_gets_wrong_ends_one_call_and_not_the_service(
    serve: Serve, generation: Generation
) -> None:
    with serve(running_by(generation, lambda names, arrays: [object()])) as running:
        for _ in range(2):
            assert refused(running, asked()).code() is grpc.StatusCode.INTERNAL


def test_a_long_message_is_refused_with_the_limit(serve: Serve, front: str) -> None:
    with serve() as running:
        error = raw(running, b"\0" * 70_000, f"/{SERVICE}/ModelInfer")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "65536" in error.details()


# In which order, and until when.


def test_calls_go_by_priority_and_then_by_deadline(
    serve: Serve, gate: Gate, services: list[Inference]
) -> None:
    """The least first; what declares none goes last, the most urgent first among its like."""
    waits = ((1, {}, 9), (2, {"priority": 7}, None), (3, {}, 8), (4, {"priority": 1}, None))
    with serve(gate.generation) as running:
        infer = stub(running).ModelInfer
        calls = [infer.future(asked([[0, 1, 0]]))]
        assert gate.entered.wait(60)
        for number, parameters, timeout_s in waits:
            call = asked([[number, 1, 0]], **parameters)
            calls.append(infer.future(call, timeout=timeout_s))
        wait_for(lambda: services[0].under_way == 5)
        gate.open.set()
        for call in calls:
            call.result(60)
    assert gate.ran == [0.0, 4.0, 2.0, 3.0, 1.0]


@pytest.mark.parametrize("kind", ["int64_param", "uint64_param"])
def test_a_call_that_cannot_be_answered_by_its_timeout_is_told_so_and_not_run(
    serve: Serve, gate: Gate, kind: str
) -> None:
    with serve(gate.generation) as running:
        infer = stub(running).ModelInfer
        first = infer.future(asked([[0, 1, 0]]))
        assert gate.entered.wait(60)
        late = asked([[1, 1, 0]])
        setattr(late.parameters["timeout"], kind, 30_000)
        begun_s = time.monotonic()
        error = refused(running, late)  # it is told while the model still works
        took_s = time.monotonic() - begun_s
        gate.open.set()
        first.result(60)
        # Runs are in their order: what comes behind was asked after the late one.
        infer(asked([[2, 1, 0]]), timeout=10)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.details().startswith("timeout")
    # An arrival is dated to the look before it: up to a tick of 5 ms early.
    assert took_s >= 0.025
    assert gate.ran == [0.0, 2.0]


def test_a_call_that_runs_too_long_is_told_so_in_time(serve: Serve, gate: Gate) -> None:
    with serve(gate.generation) as running:
        error = refused(running, asked(timeout=30_000))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.open.set()
        assert stub(running).ModelInfer(asked(), timeout=10).outputs


def test_what_a_model_never_did_so_fast_is_not_begun(serve: Serve, generation: Generation) -> None:
    ran: list[int] = []

    def slow(names: Sequence[str], arrays: Any) -> list[Any]:
        ran.append(len(arrays["features"]))
        time.sleep(0.2)
        return generation.champion.session.run(names, arrays)

    with serve(running_by(generation, slow)) as running:
        stub(running).ModelInfer(asked(), timeout=10)
        error = refused(running, asked(timeout=100_000))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert ran == [1]


def test_a_call_whose_caller_left_is_not_run(
    serve: Serve, gate: Gate, services: list[Inference]
) -> None:
    with serve(gate.generation) as running:
        infer = stub(running).ModelInfer
        first = infer.future(asked([[0, 1, 0]]))
        assert gate.entered.wait(60)
        left = infer.future(asked([[1, 1, 0]]))
        wait_for(lambda: services[0].under_way == 2)
        left.cancel()
        wait_for(lambda: services[0].under_way == 1)
        gate.open.set()
        first.result(60)
        infer(asked([[2, 1, 0]]), timeout=10)
    assert gate.ran == [0.0, 2.0]


def test_beyond_the_queue_the_last_in_the_order_is_turned_away(
    serve: Serve, gate: Gate, services: list[Inference], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_module, "WAITING_MAX", 2)
    with serve(gate.generation) as running:
        infer = stub(running).ModelInfer
        first = infer.future(asked([[0, 1, 0]]))
        assert gate.entered.wait(60)
        last = infer.future(asked([[1, 1, 0]]))
        wait_for(lambda: services[0].under_way == 2)
        urgent = [infer.future(asked([[2, 1, 0]], priority=1)) for _ in range(2)]
        error = last.exception(10)
        gate.open.set()
        for call in (first, *urgent):
            call.result(60)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert gate.ran == [0.0, 2.0, 2.0]


def test_a_flood_is_turned_away_unread_and_liveness_is_not(
    serve: Serve, gate: Gate, services: list[Inference], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_module, "UNREAD_MAX", 3)
    with serve(gate.generation) as running:
        infer = stub(running).ModelInfer
        calls = [infer.future(asked()) for _ in range(3)]
        wait_for(lambda: services[0].under_way == 3)
        error = refused(running, asked())
        assert stub(running).ServerReady(pb.ServerReadyRequest()).ready
        gate.open.set()
        for call in calls:
            call.result(60)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# Beside the decisions.


def test_decisions_go_on_while_a_model_works_for_the_protocol(
    serve: Serve, generation: Generation, gate: Gate
) -> None:
    with serve(gate.generation) as running:
        waiting = stub(running).ModelInfer.future(asked())
        assert gate.entered.wait(60)
        for number in range(50):
            request = catalogue.request(running.fingerprint, transaction_id=f"t-{number}")
            assert decide(running, request).stand_in == decision_pb2.NONE
        assert not waiting.done()
        gate.open.set()
        assert waiting.result(60).outputs


@pytest.mark.alone
def test_decisions_are_in_time_beside_callers_that_never_stop(
    serve: Serve, generation: Generation
) -> None:
    """Wide calls with their elements as numbers: the most that the reader can be given to do."""
    rows = [[20.0, 1.0, 0.0]] * ROWS_MAX
    wide = asked(rows)
    del wide.raw_input_contents[:]
    wide.inputs[0].contents.fp32_contents.extend(np.ravel(rows))
    over = threading.Event()

    def insist(address: str) -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer = GRPCInferenceServiceStub(channel).ModelInfer
            while not over.is_set():
                with suppress(grpc.RpcError):
                    infer(wide, timeout=5)

    with serve(patient(generation)) as running:
        threads = [threading.Thread(target=insist, args=(running.address,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        answers = [
            decide(running, catalogue.request(running.fingerprint, transaction_id=f"t-{number}"))
            for number in range(100)
        ]
        over.set()
        for thread in threads:
            thread.join()
    assert all(answer.stand_in == decision_pb2.NONE for answer in answers)
    assert np.median([answer.elapsed_us for answer in answers]) < 100_000


def test_a_heavy_model_answers_both(serve: Serve, generation: Generation) -> None:
    """Its decisions come from the annex, its scores from beside it."""
    with serve(heavy(generation, 0.02, 10_000), measured_ns=HEAVY) as running:
        call = stub(running).ModelInfer.future(asked(model="heavy"))
        answer = decide(running, catalogue.request(product="heavy"))
        given = arrays_in(call.result(60))["probabilities"]
    assert answer.stand_in == decision_pb2.NONE
    assert answer.probability == pytest.approx(given[0, 1], abs=1e-6)


def test_a_stop_waits_for_what_was_asked(serve: Serve, gate: Gate) -> None:
    with serve(gate.generation) as running:
        waiting = stub(running).ModelInfer.future(asked())
        assert gate.entered.wait(60)
        running.stop.ask()
        ready = stub(running).ServerReady
        wait_for(lambda: not ready(pb.ServerReadyRequest()).ready)
        assert not stub(running).ModelReady(pb.ModelReadyRequest(name="test")).ready
        gate.open.set()
        assert waiting.result(60).outputs
        running.ended()


def test_a_new_generation_is_served_from_the_next_call_on(
    serve: Serve, generation: Generation, gate: Gate
) -> None:
    succeeded = threading.Event()
    product = generation.product.model_copy(update={"generation": 4})
    with serve(gate.generation) as running:
        infer = stub(running).ModelInfer
        before = infer.future(asked())
        assert gate.entered.wait(60)
        running.succession.propose(replace(generation, product=product), {}, succeeded.set)
        assert succeeded.wait(60)
        after = infer.future(asked())
        with pytest.raises(grpc.RpcError) as caught:
            stub(running).ModelMetadata(pb.ModelMetadataRequest(name="test", version="3"))
        gate.open.set()
        versions = [call.result(60).model_version for call in (before, after)]
    assert versions == ["3", "4"]
    assert caught.value.details() == "no such version of test; served: 4"


class Told:
    """A front that keeps what it is given, and no more."""

    def __init__(self) -> None:
        self.answers: dict[Any, pb.ModelInferResponse] = {}
        self.failed: dict[Any, int] = {}

    def reply(self, call_id: Any, payload: bytes) -> bool:
        self.answers[call_id] = pb.ModelInferResponse.FromString(payload)
        return True

    def fail(self, call_id: Any, code: int, *_: Any) -> bool:
        self.failed[call_id] = code
        return True


def submit(service: Inference, call_id: int, request: pb.ModelInferRequest) -> None:
    now_ns = time.monotonic_ns()
    event = (0, call_id, MODEL_INFER, request.SerializeToString(), None, None)
    service.submit(event, Arrival(now_ns, now_ns, time.time()), is_ready=True)


def leave(service: Inference) -> None:
    def all_left() -> bool:
        service.leave()
        return not service.is_busy

    wait_for(all_left)


def test_a_call_sees_one_generation_from_end_to_end_and_the_old_one_is_let_go(
    generation: Generation,
) -> None:
    gate = Gate(generation)
    old = gate.generation
    product = generation.product.model_copy(update={"generation": 4})
    told = Told()
    with Inference(told) as service:  # type: ignore[arg-type]
        service.serve([old])
        submit(service, 1, asked())
        assert gate.entered.wait(60)
        service.serve([replace(generation, product=product)])
        gate.open.set()
        leave(service)
        held = weakref.ref(gate)
        del gate, old

        def is_let_go() -> bool:
            gc.collect()
            return held() is None

        wait_for(is_let_go)
        submit(service, 2, asked())
        leave(service)
    assert {call: answer.model_version for call, answer in told.answers.items()} == {1: "3", 2: "4"}
    assert told.failed == {}


def test_a_run_lets_decisions_go_first_and_is_not_starved_by_them(generation: Generation) -> None:
    begun_ns: list[int] = []

    def run(names: Sequence[str], arrays: Any) -> list[Any]:
        begun_ns.append(time.monotonic_ns())
        return generation.champion.session.run(names, arrays)

    told = Told()
    with Inference(told) as service:  # type: ignore[arg-type]
        service.serve([running_by(generation, run)])
        service.is_pressed = True
        asked_ns = time.monotonic_ns()
        submit(service, 1, asked())
        leave(service)
    assert told.answers.keys() == {1}
    assert begun_ns[0] - asked_ns >= inference_module.GIVE_WAY_NS


def test_the_interpreter_changes_hands_as_before_once_it_has_ended() -> None:
    before_s = sys.getswitchinterval()
    with Inference(Told()):  # type: ignore[arg-type]
        assert sys.getswitchinterval() <= 0.0005
    assert sys.getswitchinterval() == before_s


# A client that exists.


@pytest.fixture(scope="session")
def triton_python() -> Path:
    """An environment with `tritonclient[grpc]`, made once beside the packages of this one."""
    place = Path(sys.prefix) / TRITONCLIENT.translate(str.maketrans("[]=", "---"))
    if not place.exists():
        made = place.with_name(f"{place.name}.{os.getpid()}")
        venv.create(made, with_pip=True)
        pip = [made / "bin" / "python", "-m", "pip", "install", "--quiet", TRITONCLIENT]
        installed = subprocess.run(pip, capture_output=True, text=True)
        if installed.returncode:
            shutil.rmtree(made)
            pytest.skip(f"{TRITONCLIENT} cannot be installed: {installed.stderr.strip()[-200:]}")
        try:
            made.rename(place)
        except OSError:  # another run has made it meanwhile
            shutil.rmtree(made)
    return place / "bin" / "python"


@pytest.mark.slow
def test_tritonclient_works_as_it_comes(
    serve: Serve, generation: Generation, triton_python: Path, tmp_path: Path
) -> None:
    words = foreign("one-hot-pipeline")
    classifier = classifier_of(words)
    product = generation.product.model_copy(update={"name": "words"})

    def labelled(names: Sequence[str], arrays: Any) -> list[Any]:
        """Give one output of texts more, as the model itself has none."""
        (scores,) = classifier.session.run(["probabilities"], arrays)
        texts = np.array(["fraud" if p > 0.5 else "gültig" for p in scores[:, 1]], dtype=object)
        return [texts if name == "text" else scores for name in names]

    ports = [port for port in classifier.session.outputs if port.name == "probabilities"]
    text = ports[0]._replace(name="text", type="tensor(string)", shape=(None,))
    session = Session(classifier.session.inputs, (*ports, text), labelled)
    spoken = replace(generation, product=product, champion=replace(classifier, session=session))
    slow = Gate(generation, name="slow")
    rows = np.array([[20, 1, 0], [500, 2, 1]], dtype=np.float32)
    arrays = table_of(words, classifier, slice(0, N))
    sent = {f"words.{n}": a.astype("U") if a.dtype == object else a for n, a in arrays.items()}
    np.savez(tmp_path / "requests.npz", features=rows, **sent)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with serve(generation, spoken, slow.generation) as running:
        client = subprocess.run(
            [
                *(triton_python, Path(__file__).with_name("triton_client.py")),
                *(running.address, tmp_path / "requests.npz"),
            ],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
        )
        slow.open.set()
    assert client.returncode == 0, client.stderr
    told = json.loads(client.stdout)
    assert told["live"]
    assert told["ready"]
    assert told["models"] == {"test:": True, "test:3": True, "test:4": False, "other:": False}
    assert told["server"]["name"] == "decision-gateway"
    assert told["metadata"]["inputs"] == [
        {"name": "features", "datatype": "FP32", "shape": ["-1", "3"]}
    ]
    assert told["id"] == "r-1"
    scores = told["scores"]
    assert [row[1] for row in scores] == generation.champion.score(rows)
    assert told["compressed"] == scores
    assert told["async"] == [scores] * 5
    assert told["asyncio"] == [scores] * 3
    assert [row[1] for row in told["word scores"]] == pytest.approx(words.score(), rel=2e-6)
    assert told["labels"] == ["fraud" if p > 0.5 else "gültig" for p in words.score()]
    told_of = told["refused"]
    assert told_of["timeout"].startswith("StatusCode.DEADLINE_EXCEEDED timeout")
    assert told_of["client timeout"].startswith("StatusCode.DEADLINE_EXCEEDED")
    assert told_of["name"] == "StatusCode.NOT_FOUND no such model. Did you mean test?"
    assert "asks for a sequence" in told_of["sequence"]
    assert "asks for classes" in told_of["classes"]
