"""One `dvc repro` as a process: its lines as it writes them, why it failed, and how it is stopped."""

import asyncio
import codecs
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

import psutil

from pipeline.running.live import View

DVC = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
# DVC's own lines among those of the stages.
CHATTER = re.compile(
    r"\s*$|> |Running stage '|Stage '.*' didn't change|Data and pipelines are up to date|Use `dvc push`"
    r"|(Generating|Updating) lock file|To track the changes with git|To enable auto staging|\tgit |\tdvc "
)
LAST_LINES = 15  # shown of a stage that failed without an `error: ` line
SECONDS_TO_STOP = 30  # a training answers after some steps of an epoch, then closes its run in MLflow
SECONDS_TO_END = 5


async def run(name: str, arguments: list[str], view: View) -> str:
    """Run `dvc repro` with these arguments, shown under a name; the reason if it failed, else "".

    It has its own session: Ctrl-C on the terminal reaches only this process, which then cancels this task.
    """
    view.start(name)
    process = await asyncio.create_subprocess_exec(
        *DVC, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )
    last = deque([""], maxlen=LAST_LINES)
    try:
        async for line, whole in _lines(process):
            if not CHATTER.match(line):
                view.line(name, line, whole)
                last += [line] if whole else []
        status = await process.wait()
    except asyncio.CancelledError:
        await _stop(process)
        if process.returncode == 0:
            view.end(name, "done", "")
        raise
    reason = (_reason(last) or f"ended with exit status {status}") if status else ""
    view.end(name, "failed" if status else "done", reason.rpartition("\n")[2] or last[-1])
    return reason


async def _lines(process: Process) -> AsyncIterator[tuple[str, bool]]:
    """A process's lines, and whether they are complete: a progress bar's states are not."""
    assert process.stdout
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    while chunk := await process.stdout.read(2**16):
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in whole:
            yield line.rstrip("\r").rpartition("\r")[2], True
        rest = rest.rpartition("\r")[2] or rest
        if rest:
            yield rest.rstrip("\r"), False
    if rest:
        yield rest, True


def _reason(last: Iterable[str]) -> str:
    """The line of a stage's own error; the last lines if it has none."""
    errors = [line for line in last if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else "\n".join(last).strip()


async def _stop(process: Process) -> None:
    """Interrupt the process that DVC runs, which ends DVC too; after a timeout terminate and kill all.

    DVC itself is not interrupted, since it may be writing a finished stage to dvc.lock.
    """
    interrupted: set[psutil.Process] = set()
    reading = asyncio.create_task(process.communicate())  # a full pipe would hold it up
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS_TO_STOP):
            while _is_alive(process.pid):
                with suppress(psutil.NoSuchProcess):
                    for child in {*psutil.Process(process.pid).children(recursive=True)} - interrupted:
                        child.send_signal(signal.SIGINT)
                        interrupted.add(child)
                await asyncio.sleep(0.1)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        await asyncio.wait([reading], timeout=SECONDS_TO_END)
    reading.cancel()


def _is_alive(group: int) -> bool:
    """Whether any process of a group is still there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
