"""`gateway sidecar`."""

from __future__ import annotations

import gc
import json as json_codec
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from prometheus_client.registry import Collector

from gateway.cli.attached import Attachment, errors_told, step_back
from gateway.cli.evaluating import Evaluating
from gateway.cli.looking import Looking
from gateway.cli.serve import tls_of
from gateway.cli.sidecar_consumers import Asked, consumers_of
from gateway.cli.sidecar_http import TOKEN_VARIABLE, answering, token_of
from gateway.cli.terms import Insecure, Json, every_s, notes, span_ns
from gateway.errors import ExitCode, UsageError
from gateway.model.registry import STORE, Registry
from gateway.serve import Tls
from gateway.serve.crew.port import Claim, claimed
from gateway.serve.fronts.address import checked_address
from gateway.sidecar.feedback.intake import Counts, Intake, Products
from gateway.sidecar.feedback.server import FeedbackServer, credentials
from gateway.sidecar.feedback.store import FILE as LABELS
from gateway.sidecar.feedback.store import Store
from gateway.sidecar.feedback.traces import LabelTraces
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.shipping import KEY, subject_key
from gateway.sidecar.metrics.evaluated import Evaluated
from gateway.sidecar.presence import Presence, running
from gateway.sidecar.tail.checkpoint import STATE
from gateway.sidecar.tail.retention import Keeping, Retention
from gateway.sidecar.traces.collector import collector_of, resource_of
from gateway.sidecar.traces.otlp import Exporter
from gateway.sidecar.traces.spans import Detail
from gateway.sidecar.wing import Wing

EVALUATE_EVERY = "15m"

ONCE_IDLE_S = 3.0
"""With --once: a consumer that has found nothing new for so long is done."""


@errors_told
def sidecar(
    *,
    journal: Annotated[
        Path, Parameter(help="The folder that serve was given as --journal.")
    ] = Path("journal"),
    lake: Annotated[
        str | None,
        Parameter(
            help="Fill a lake of Parquet files: a directory, or a URI such as s3://bucket/lake."
        ),
    ] = None,
    listen: Annotated[
        str,
        Parameter(
            help="Where labels are taken: HOST:PORT or unix:PATH. Port 0: the system's. Not with "
            "--once."
        ),
    ] = "127.0.0.1:50052",
    http: Annotated[
        str,
        Parameter(
            help="Where Prometheus may ask for /metrics, and browsers for the page; port 0 is any. "
            "Other addresses than loopback need a token."
        ),
    ] = "127.0.0.1:9464",
    token_file: Annotated[
        Path | None,
        Parameter(
            help="A file that holds the token to ask for over HTTP, as `Authorization: Bearer` or "
            f"as the password of any user; or {TOKEN_VARIABLE} in the environment. There is no "
            "TLS: beyond this machine put a proxy that has some before it."
        ),
    ] = None,
    otlp: Annotated[
        str,
        Parameter(
            help="An OTLP collector over gRPC, such as http://localhost:4317. Where left out, "
            "OTEL_EXPORTER_OTLP_ENDPOINT says it; without either no trace is sent."
        ),
    ] = "",
    stages: Annotated[
        str,
        Parameter(
            help="Which calls have a span a stage: `notable` (slow, stood in, refused, failed) or "
            "`all`."
        ),
    ] = "notable",
    sampled: Annotated[
        float,
        Parameter(validator=Number(gte=0, lte=1), help="And this share of the other calls."),
    ] = 0.0,
    keep: Annotated[
        str,
        Parameter(
            help="With --lake: how long a segment of the journal stays once everything here is "
            "past it, such as 12h. `journal cat`, `explain` and `whatif` read the journal."
        ),
    ] = "7d",
    evaluate: Annotated[
        str | None,
        Parameter(
            help="With --lake: evaluate it so often, such as 1h, in a process of its own; keep the "
            "evaluation in the lake and show goals, promises and verdicts to Prometheus. 0 or off: "
            f"never. Without it {EVALUATE_EVERY}, and with --once never."
        ),
    ] = None,
    tls_certificate: Annotated[Path | None, Parameter(help="PEM file, for --listen.")] = None,
    tls_key: Annotated[Path | None, Parameter(help="PEM file.")] = None,
    tls_client_authority: Annotated[
        Path | None, Parameter(help="PEM file. Who reports must show a certificate it signed.")
    ] = None,
    insecure: Insecure = False,
    once: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Stop when everything that is there is behind."
        ),
    ] = False,
    checkpoints: Annotated[
        Path | None,
        Parameter(
            help="Keep how far each consumer is there instead of beside the journal: a new place "
            "begins with the journal, and nothing of that is deleted."
        ),
    ] = None,
    attached: Annotated[
        bool,
        Parameter(
            negative="", show=False, help="Started by serve: give way to it, and end after it."
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Make traces, metrics and a lake of the journal, and take labels: each once.

    Labels and group attributes come over gRPC (gateway.v1.FeedbackService, `gateway label`); what
    is acknowledged is on disk beside the journal, and goes into the lake and the traces from there.
    Each consumer has a checkpoint of its own beside the journal, so that one that waits holds no
    other back, and a sidecar that was killed goes on where it was. It reads; the gateway does not
    notice it.
    """
    logging.basicConfig(
        level=logging.INFO,
        format="[%(asctime)s] %(levelname)-8s sidecar: %(message)s",
        datefmt="%H:%M:%S",
    )
    if attached:
        step_back()
    if stages not in ("notable", "all"):
        raise UsageError("is notable or all", subject=f"--stages {stages}")
    if not journal.is_dir():
        raise UsageError(
            "there is no such folder",
            subject=str(journal),
            hint="Name the folder that serve was given, with --journal.",
        )
    keep_s = span_ns(keep) / 1e9
    evaluate_s = _evaluated_every_s(evaluate, lake, once=once)
    tls = tls_of(tls_certificate, tls_key, tls_client_authority)
    checked_address(listen, tls=tls is not None, insecure=insecure)
    token = token_of(token_file, os.environ)
    # Calls come and go by thousands and hold no cycles: looking for some among them at Python's own
    # pace took a fifth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    collector = collector_of(os.environ, otlp)
    state = journal / STATE
    kept = checkpoints or state
    present = Presence(os.getpid(), attached, str(kept.absolute()))
    with ExitStack() as stack:
        # Before anything is read: a second sidecar ends here, and touches no checkpoint.
        tell = stack.enter_context(running(state, present))
        claim = None if once else stack.enter_context(claimed(listen))

        def store() -> Store:
            return stack.enter_context(Store(state / LABELS))

        def exporter() -> Exporter:
            assert collector is not None
            host, ours = socket.gethostname(), version("decision-gateway")
            resource = resource_of(os.environ, host=host, version=ours)
            return stack.enter_context(Exporter(collector, resource))

        key, labels, counts = subject_key(state / KEY), store(), Counts()
        consumers = consumers_of(
            Asked(
                journal=journal,
                kept=kept,
                key=key,
                store=store,
                exporter=None if collector is None else exporter,
                detail=Detail(sampled_share=sampled, all_calls=stages == "all"),
                lake=lake,
                once=once,
            )
        )
        shown: list[Collector] = [consumers.measures, counts]
        evaluated = evaluating = None
        if lake is not None and evaluate_s is not None:
            evaluated = Evaluated(evaluate_s)
            shown.append(evaluated)
            evaluating = Evaluating(lake, evaluated, every_s=evaluate_s)
        looking = Looking(journal, lake)
        address = stack.enter_context(
            answering(http, evaluated, *shown, looks=looking, token=token)
        )
        names = tuple(one.name for one in consumers.of_journal)
        if checkpoints is None:
            kept_s = None if lake is None else keep_s
            retention = Retention(journal, state, names, keep_s=kept_s, forget_s=keep_s)
            stack.enter_context(Keeping(retention))
        attachment = Attachment(journal, consumers.lags) if attached else None
        if attachment:
            stack.callback(attachment.say_what_is_left)  # once the consumers have ended
        wing = stack.enter_context(Wing(consumers.all, idle_s_max=ONCE_IDLE_S if once else None))
        if claim is not None:
            products = Products(Registry(journal / STORE))
            intake = Intake(labels, products, lambda subject: pseudonym(subject, key), counts)
            stack.enter_context(_taking(claim, intake, tls))
        if evaluating is not None:
            stack.enter_context(evaluating)
        taking = None if claim is None else claim.address
        tell(replace(present, metrics=address, lake=lake or "", consumers=names))
        _announce(address, taking, [one.name for one in consumers.all], json=json)

        def is_over() -> bool:
            if attachment is None:
                return False
            over = attachment.is_over()
            if attachment.is_cut and evaluating is not None:
                evaluating.end()  # what is left of the time is the consumers'
            if not over and attachment.waits_for == {LabelTraces.name}:
                for one in consumers.of_labels:
                    if isinstance(one, LabelTraces):
                        one.hurry()
            return over

        _wait(wing, is_over)
    return ExitCode.OK


def _evaluated_every_s(asked: str | None, lake: str | None, *, once: bool) -> float | None:
    """Return how often the lake is to be evaluated; None: never. Raises UsageError."""
    if asked is None:
        return None if once or lake is None else every_s(EVALUATE_EVERY)
    pause_s = every_s(asked)
    if pause_s is not None and (once or lake is None):
        raise UsageError(
            "is for a sidecar that goes on" if once else "needs a lake to evaluate",
            subject=f"--evaluate {asked}",
            hint="Then: gateway evaluate --lake DIR." if once else "Add --lake DIR.",
        )
    return pause_s


@contextmanager
def _taking(claim: Claim, intake: Intake, tls: Tls | None) -> Iterator[None]:
    """Take labels at an address that is ours, as long as the context is open."""
    secured = None
    if tls is not None:
        secured = credentials(tls.certificate, tls.key, tls.client_authority)
    target, is_shared = claim.listen(0), not claim.is_unix
    with FeedbackServer(target, intake, credentials=secured, reuse_port=is_shared):
        claim.take_over(0)
        yield


def _announce(address: str, taking: str | None, names: list[str], *, json: bool) -> None:
    if json:
        told = {"metrics": address, "feedback": taking, "consumers": names}
        print(json_codec.dumps(told), flush=True)
        return
    notes.print(f"{', '.join(names)}; {address}", markup=False)
    if taking is not None:
        notes.print(f"Labels: {taking}. Next: gateway label FILE --to {taking}", markup=False)


def _wait(wing: Wing, is_over: Callable[[], bool]) -> None:
    """Wait until the consumers have ended, SIGTERM or SIGINT asks them to, or it is over."""
    asked = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        while wing.is_working and not asked.wait(0.1) and not is_over():
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
