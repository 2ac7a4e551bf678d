"""A worker as a process of its own: what the supervisor starts.

Its argument is the number of the socket over which the supervisor gives it its order.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from itertools import count
from typing import BinaryIO, NoReturn

from gateway.errors import ExitCode, GatewayError
from gateway.serve.crew.beat import Beat
from gateway.serve.crew.board import joined
from gateway.serve.crew.control import Order, Ready, encode_error
from gateway.serve.crew.settings import Settings
from gateway.serve.crew.stop import Stop, stop_on_signals


def main() -> int:
    """Do what the supervisor orders. Return the exit code."""
    stop = Stop()
    with stop_on_signals(stop), socket.socket(fileno=int(sys.argv[1])) as supervisor:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        supervisor.set_inheritable(False)
        # What takes longest, before it has its order: it may be a spare, and wait for that.
        import_module("gateway.serve.worker")
        said = supervisor.makefile("rb")  # open to the end: more may come than the order
        if not (line := said.readline()):
            return ExitCode.OK  # it is not needed
        try:
            _serve(Order.decode(line), said, supervisor, stop)
        except GatewayError as error:
            with suppress(OSError):
                supervisor.sendall(encode_error(error))
            return error.exit_code
    return ExitCode.OK


def _serve(order: Order, said: BinaryIO, supervisor: socket.socket, stop: Stop) -> None:
    from gateway.serve import worker
    from gateway.serve.succession.succession import Loader, Succession

    settings = order.settings
    _log_as(settings)
    if settings.core is not None:
        _keep_to(settings.core)
    succession = Succession(count())
    loader = Loader(said, supervisor, succession)
    with joined(settings.journal) as board:
        beat = Beat(board.page(settings.worker), supervisor, stop)

        def announce(ready: worker.Ready) -> None:
            beat.serving()
            products = {g.name: g.product.generation for g in ready.generations}
            try:
                supervisor.sendall(Ready(ready.address, products).encode())
            except OSError:
                stop.ask()  # nobody is there to be told
            loader.start()

        worker.serve(
            settings,
            order.loads,
            stop=stop,
            announce=announce,
            board=board,
            beat=beat,
            succession=succession,
        )


def _keep_to(core: int) -> None:
    """Keep every thread to one processor; those to come inherit it."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def _log_as(settings: Settings) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format=f"[%(asctime)s] %(levelname)-8s worker {settings.worker}: %(message)s",
        datefmt="%H:%M:%S",
    )


def run() -> NoReturn:
    """End the process with the code of `main`, whatever other threads do.

    Where one is in ONNX Runtime's code, opening a new generation, say, an orderly end of the
    interpreter would abort: nothing is left to be put in order by now.
    """
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
