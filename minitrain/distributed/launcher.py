"""`launch`: run a function in several processes that train together, from a script or a notebook.

The processes find the environment variables that torchrun sets, so `train` and `process_group` work in them. They
are spawned, not forked, because torch's threads and CUDA do not survive a fork.

torch.multiprocessing.spawn returns no results, and torch.distributed.elastic loses the type of an error; both end
all processes when one ends, while here an interrupted run may save first.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from threading import Thread
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from minitrain.distributed.notebook import MODULE, notebook_function_to_module
from minitrain.errors import MinitrainError, PeerError, Stopped

PATIENCE = 10.0  # seconds that processes have to end by themselves after one has failed


def launch(function: Callable[..., Any], args: Sequence[Any] = (), num_processes: int = 1) -> list[Any]:
    """Call `function(*args)` in several processes at once and return their results by rank.

    A script must guard its call with `if __name__ == "__main__":`, since every process imports the script. On a CPU
    the processes divide the cores, unless OMP_NUM_THREADS is set.

    Args:
        function: Defined in a module, a script or a notebook. From a notebook, the imports, functions, classes and
            plain values that it uses are copied; larger values must be created inside or passed in `args`.
        args: Values that `multiprocessing` can send; the same holds for results.

    Raises:
        MinitrainError: A process was killed.
        Exception: The error of the first process that failed, with its traceback as the cause.
    """
    if num_processes < 1:
        raise MinitrainError(f"num_processes is {num_processes}; expected 1 or more")
    # This process hosts the store: if rank 0 did and failed, the others could not learn why.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        typed_in = function.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
        work = (notebook_function_to_module(function, folder) if typed_in else function, args)
        workers: list[_Worker] = []
        try:
            for rank in range(num_processes):
                workers.append(_Worker(rank, num_processes, store.port, work))
            results = _results(workers)
            for worker in workers:
                worker.process.join(PATIENCE)
            return results
        except Stopped:  # raised by a worker; the others stop too and must not be interrupted again
            raise
        except KeyboardInterrupt:
            # Wait until every run has saved; a second interrupt ends the waiting.
            for worker in workers:
                worker.interrupt()
            for worker in workers:
                worker.outcome()
            raise
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    """A launched process, seen from the process that launched it."""

    def __init__(self, rank: int, size: int, port: int, work: tuple[Any, Sequence[Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.rank = rank
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_run_worker, args=(other, rank, size, port, *work))
        self.process.start()
        other.close()

    def outcome(self) -> Any:
        """Wait for the result, or for the error, which is returned in a `_Failure`."""
        try:
            outcome = self.pipe.recv()
            self.pipe.send(None)  # tensors are received, so the worker may end
            return outcome
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            return _Failure(MinitrainError(f"rank {self.rank} of the launch ended by {how}, without a message"))

    def interrupt(self) -> None:
        """Pass on Ctrl-C, which a notebook sends to the launching process alone."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        """Stop the process if it is still running."""
        for stop in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                stop()
                self.process.join(PATIENCE)
        self.pipe.close()


@dataclass
class _Failure:
    """The error of a worker, with its traceback as text, in place of a result."""

    error: BaseException
    traceback: str = ""

    def raise_error(self) -> NoReturn:
        raise self.error from RuntimeError(f"in a launched process:\n{self.traceback}") if self.traceback else None


def _results(workers: list[_Worker]) -> list[Any]:
    waiting = {worker.pipe: worker for worker in workers}
    results: dict[int, Any] = {}
    lost_peers: list[_Failure] = []
    while waiting:
        ready = wait(list(waiting), PATIENCE if lost_peers else None)
        if not ready:
            break
        for pipe in ready:
            assert isinstance(pipe, Connection)
            worker = waiting.pop(pipe)
            outcome = results[worker.rank] = worker.outcome()
            if isinstance(outcome, _Failure):
                if not isinstance(outcome.error, PeerError):
                    outcome.raise_error()
                lost_peers.append(outcome)  # the process that failed first has the error to raise
    if lost_peers:
        lost_peers[0].raise_error()
    return [results[worker.rank] for worker in workers]


def _run_worker(pipe: Connection, rank: int, size: int, port: int, function: Any, args: Sequence[Any]) -> None:
    """The main function of a launched process."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
        **{"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 starts no server
    }
    Thread(target=_end_with_parent, daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    try:
        if isinstance(function, tuple):  # from a notebook
            folder, module, name = function
            sys.path.insert(0, folder)
            function = getattr(import_module(module), name)
        outcome = function(*args)
    except (Exception, KeyboardInterrupt) as error:
        outcome = _Failure(_portable(error), "".join(traceback.format_exception(error)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    pipe.send(outcome)
    pipe.recv()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _portable(error: BaseException) -> BaseException:
    """The error, or a MinitrainError with its text if it cannot be pickled and unpickled."""
    try:
        if type(error).__module__ == MODULE:
            raise TypeError("the notebook has another copy of this class")
        ForkingPickler.loads(ForkingPickler.dumps(error))
        return error
    except Exception:
        return MinitrainError(f"{type(error).__name__}: {error}")
