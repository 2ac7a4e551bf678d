"""`gateway serve`."""

from __future__ import annotations

import json as json_codec
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.cli.sidecar_child import SidecarOptions, companion_of
from gateway.cli.terms import Folder, Insecure, Json, notes, out, size_bytes
from gateway.errors import ExitCode, UsageError
from gateway.journal import Mode
from gateway.serve import Settings, Started, Tls, supervise


def serve(
    *folders: Folder,
    listen: Annotated[str, Parameter(help="HOST:PORT or unix:PATH. Port 0: the system's.")] = (
        "127.0.0.1:50051"
    ),
    journal: Annotated[Path, Parameter(help="Where the records go. Made if absent.")] = Path(
        "journal"
    ),
    mode: Annotated[
        Literal["buffered", "process", "power"],
        Parameter(
            help="What a reply waits for: nothing, the write (survives a kill), or the disk "
            "(survives a power cut)."
        ),
    ] = "process",
    journal_max_bytes: Annotated[
        str,
        Parameter(
            help="When the journal would outgrow this, segments go: the oldest that the sidecar is "
            "past, or else the oldest, and the gap is counted."
        ),
    ] = "4GiB",
    front: Annotated[
        Literal["native", "grpcio"], Parameter(help="The gRPC front. TLS needs grpcio.")
    ] = "native",
    tls_certificate: Annotated[Path | None, Parameter(help="PEM file.")] = None,
    tls_key: Annotated[Path | None, Parameter(help="PEM file.")] = None,
    tls_client_authority: Annotated[
        Path | None, Parameter(help="PEM file. Callers must show a certificate it signed.")
    ] = None,
    insecure: Insecure = False,
    workers: Annotated[
        int | None,
        Parameter(
            help="Processes that share the address; each uses one processor at the most. "
            "Without it: one less than there are processors."
        ),
    ] = None,
    affinity: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Keep each worker on its own processor."),
    ] = False,
    sidecar: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Keep a sidecar beside the workers: traces, metrics and a lake of the journal. "
            "The options below are `gateway sidecar`'s.",
        ),
    ] = False,
    lake: Annotated[
        str | None, Parameter(help="With --sidecar: the lake to fill, a directory or a URI.")
    ] = None,
    otlp: Annotated[
        str | None, Parameter(help="With --sidecar: the collector of traces to send to.")
    ] = None,
    http: Annotated[
        str | None,
        Parameter(help="With --sidecar: where Prometheus may ask; without it 127.0.0.1:9464."),
    ] = None,
    token_file: Annotated[
        Path | None,
        Parameter(help="With --sidecar: holds the token that --http asks for beyond loopback."),
    ] = None,
    feedback: Annotated[
        str | None,
        Parameter(
            help="With --sidecar: where it takes labels, HOST:PORT of this host or unix:PATH; "
            "without it 127.0.0.1:50052."
        ),
    ] = None,
    stages: Annotated[
        Literal["notable", "all"] | None,
        Parameter(help="With --sidecar: which calls have a span a stage."),
    ] = None,
    sampled: Annotated[
        float | None,
        Parameter(
            validator=Number(gte=0, lte=1), help="With --sidecar: and this share of the others."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        Parameter(
            help="With --sidecar and --lake: how long a segment stays once all is past it; "
            "without it 7d."
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        Parameter(help="With --sidecar: where it keeps how far it is, if not with the journal."),
    ] = None,
    evaluate: Annotated[
        str | None,
        Parameter(
            help="With --sidecar and --lake: how often it evaluates the lake; without it 15m, 0 or "
            "off: never."
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Serve products over gRPC until SIGTERM or Ctrl-C.

    One line on stdout says where, once calls are answered. Stopping answers what was
    received, then syncs the journal. SIGHUP replaces the workers one by one, with nothing lost.

    The sidecar is a process of its own that gives way to the workers; it is started again when it
    dies, and has some seconds at the end for what they have left.
    """
    logging.basicConfig(
        # As the workers': a line is whole, whoever else writes to the same terminal or file.
        level=logging.INFO,
        format="[%(asctime)s] %(levelname)-8s %(message)s",
        datefmt="%H:%M:%S",
    )
    settings = Settings(
        folders=folders,
        listen=listen,
        journal=journal,
        mode=Mode(mode),
        journal_max_bytes=size_bytes(journal_max_bytes),
        front=front,
        tls=tls_of(tls_certificate, tls_key, tls_client_authority),
        insecure=insecure,
    )

    options = SidecarOptions(
        lake, otlp, http, feedback, stages, sampled, keep, checkpoints, evaluate, token_file
    )
    companion = companion_of(journal, options, is_asked=sidecar)

    def announce(started: Started) -> None:
        if json:
            out.file.write(json_codec.dumps(_summarised(started, lake)) + "\n")
        else:
            names = ", ".join(f"{name} (generation {n})" for name, n in started.products.items())
            count = len(started.workers)
            many = f", {count} workers" if count > 1 else ""
            out.print(f"Serving {names} on {started.address}{many}", soft_wrap=True)
            notes.print(
                f"Records go to {journal}. "
                f"Next: gateway decide REQUEST.json --to {started.address}",
                markup=False,
            )
            if started.companion is not None:
                notes.print(_sidecar_in_words(started.companion, lake), markup=False)
        out.file.flush()

    supervise(settings, workers=workers, affinity=affinity, announce=announce, companion=companion)
    notes.print(f"Stopped. Next: gateway journal verify {journal}", markup=False)
    return ExitCode.OK


def _summarised(started: Started, lake: str | None) -> dict[str, Any]:
    told = started.companion
    return {
        "address": started.address,
        "products": started.products,
        "workers": [{"worker": number, "pid": pid} for number, pid in started.workers],
        "sidecar": None if told is None else {**told, "lake": lake},
    }


def _sidecar_in_words(told: Mapping[str, Any], lake: str | None) -> str:
    filling = f"; fills {lake}" if lake else ""
    return f"Sidecar (pid {told['pid']}): {told['metrics']}; labels: {told['feedback']}{filling}"


def tls_of(certificate: Path | None, key: Path | None, client_authority: Path | None) -> Tls | None:
    """Read what TLS needs; None where none of it is given.

    Raises:
        UsageError: a file is missing, or is not what TLS takes.
    """
    if certificate is None and key is None and client_authority is None:
        return None
    if certificate is None or key is None:
        raise UsageError(
            "TLS needs both --tls-certificate and --tls-key", hint="Give both, or neither."
        )
    authority = None if client_authority is None else _pem(client_authority)
    tls = Tls(certificate=_pem(certificate), key=_pem(key), client_authority=authority)
    # gRPC would say of a wrong file only that the port cannot be listened on.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise _no_pem(error, f"{certificate} with {key}") from None
    if client_authority is not None:
        try:
            context.load_verify_locations(client_authority)
        except ssl.SSLError as error:
            raise _no_pem(error, str(client_authority)) from None
    return tls


def _no_pem(error: ssl.SSLError, subject: str) -> UsageError:
    return UsageError(
        f"cannot be used for TLS: {error.reason or 'no PEM'}",
        subject=subject,
        hint="Give PEM files: a certificate chain, and its private key without a passphrase.",
    )


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", subject=str(path), hint="Name a PEM file."
        ) from None
