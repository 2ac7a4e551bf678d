"""`gateway serve`."""

from __future__ import annotations

import json as json_codec
import logging
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from gateway.cli.terms import Folder, Json, notes, out, size_bytes
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
    insecure: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Listen on other hosts' networks without TLS."
        ),
    ] = False,
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
    json: Json = False,
) -> int:
    """Serve products over gRPC until SIGTERM or Ctrl-C.

    One line on stdout says where, once calls are answered. Stopping answers what was
    received, then syncs the journal. SIGHUP replaces the workers one by one, with nothing lost.
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

    def announce(started: Started) -> None:
        if json:
            out.file.write(json_codec.dumps(_summarised(started)) + "\n")
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
        out.file.flush()

    supervise(settings, workers=workers, affinity=affinity, announce=announce)
    notes.print(f"Stopped. Next: gateway journal verify {journal}", markup=False)
    return ExitCode.OK


def _summarised(started: Started) -> dict[str, Any]:
    return {
        "address": started.address,
        "products": started.products,
        "workers": [{"worker": number, "pid": pid} for number, pid in started.workers],
    }


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
