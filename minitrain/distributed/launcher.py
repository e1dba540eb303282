"""`launch`: a function in several processes that train together, from a script or a notebook.

What torchrun does for a script: every process finds the same variables, so that `train` and `process_group` work in
it as they do there. The processes are spawned, not forked: torch's threads and CUDA survive no fork. Nothing of the
calling process is there in them, so a function that stands in a notebook goes over as source.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist

from minitrain.distributed.notebook import MODULE, notebook_function_to_module
from minitrain.errors import MinitrainError, PeerError, Stopped

PATIENCE = 10.0  # seconds that processes have to end by themselves once one has failed


class RemoteTraceback(Exception):
    """The traceback of another process, as the cause of its error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def launch(function: Callable[..., Any], args: Sequence[Any] = (), num_processes: int = 1) -> list[Any]:
    """Call `function(*args)` in several processes at once, and return what each of them returns, by rank.

    function: of a module, a script or a notebook. Of a notebook it takes along the imports, functions, classes and
    plain values that it names; what is larger it makes itself or gets as an argument. args: what `multiprocessing`
    can send; so also the results. A script guards its own call by `if __name__ == "__main__":`, since every process
    imports it. On a CPU each process gets its share of the cores, unless OMP_NUM_THREADS says how many.

    Raises the error of the first process that fails, with its traceback, when all others have ended; MinitrainError
    where one is killed.
    """
    if num_processes < 1:
        raise MinitrainError(f"num_processes is {num_processes}; expected 1 or more")
    # The server stays with this process: a rank that fails does not take the others' word with it.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        work = (notebook_function_to_module(function, folder) if _is_interactive(function) else function, args)
        members: list[_Member] = []
        try:
            for rank in range(num_processes):
                members.append(_Member(context, rank, num_processes, store.port, work))
            results = _results(members)
            for member in members:
                member.process.join(PATIENCE)
            return results
        except Stopped:  # of a member: the others stop too, and are not to be interrupted again
            raise
        except KeyboardInterrupt:
            # A run saves before it leaves, however long that takes; a second interrupt ends the waiting.
            for member in members:
                member.interrupt()
            for member in members:
                member.outcome()
            raise
        finally:
            for member in members:
                member.end()


def _is_interactive(function: Callable[..., Any]) -> bool:
    return function.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")


class _Member:
    """One process of a launch, seen from the process that launched it."""

    def __init__(self, context: Any, rank: int, size: int, port: int, work: tuple[Any, Sequence[Any]]) -> None:
        self.rank = rank
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_member, args=(other, rank, size, port, *work))
        self.process.start()
        other.close()

    def outcome(self) -> tuple[bool, Any]:
        """(True, result) or (False, error), once there is one."""
        try:
            outcome: tuple[bool, Any] = self.pipe.recv()
            self.pipe.send(None)  # tensors have arrived: it may go
            return outcome
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            return False, MinitrainError(f"rank {self.rank} of the launch ended by {how}, without a word")

    def interrupt(self) -> None:
        """Hand on a Ctrl-C; the terminal gave it to all, but a notebook may have to this process alone."""
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        """Stop the process where it goes on."""
        for stop in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                stop()
                self.process.join(PATIENCE)
        self.pipe.close()


def _results(members: list[_Member]) -> list[Any]:
    waiting = {member.pipe: member for member in members}
    results: dict[int, Any] = {}
    bystanders: list[PeerError] = []
    while waiting:
        ready = wait(list(waiting), PATIENCE if bystanders else None)
        if not ready:
            break
        for pipe in ready:
            assert isinstance(pipe, Connection)
            member = waiting.pop(pipe)
            good, outcome = member.outcome()
            if good:
                results[member.rank] = outcome
            elif isinstance(outcome, PeerError):
                bystanders.append(outcome)  # the one that failed first has the error to raise
            else:
                raise outcome
    if bystanders:
        raise bystanders[0]
    return [results[member.rank] for member in members]


def _member(
    pipe: Connection,
    rank: int,
    size: int,
    port: int,
    function: Callable[..., Any] | tuple[str, str, str],
    args: Any,
) -> None:
    """The whole life of a launched process."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
        **{"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 starts no server of its own
    }
    Thread(target=_leave_with_parent, daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    try:
        outcome = True, _found(function)(*args)
    except (Exception, KeyboardInterrupt) as error:
        outcome = False, _portable(error)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # there is nothing left to interrupt
    pipe.send(outcome)
    pipe.recv()


def _leave_with_parent() -> None:
    """Where the launching process is gone, nobody wants the result: end, as a signal would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _found(function: Callable[..., Any] | tuple[str, str, str]) -> Callable[..., Any]:
    if not isinstance(function, tuple):
        return function
    folder, module, name = function
    sys.path.insert(0, folder)
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback, in a form that survives the way to another process."""
    text = "".join(traceback.format_exception(error))
    portable = error
    try:
        if type(error).__module__ == MODULE:
            raise TypeError("its class stands in a notebook, of which the caller has another copy")
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        portable = MinitrainError(f"{type(error).__name__}: {error}")
    return _WithTraceback(portable, text)  # type: ignore[return-value]


class _WithTraceback:
    """Unpickles as the error, its cause the text of the traceback: tracebacks themselves do not travel."""

    def __init__(self, error: BaseException, text: str) -> None:
        self.error, self.text = error, text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.error, self.text)


def _rebuilt(error: BaseException, text: str) -> BaseException:
    error.__cause__ = RemoteTraceback(text)
    return error
