"""Runs a command that ends with the process that started it, however that ends.

    python -I pipeline/running/supervisor.py COMMAND...

The starter gives it a session of its own, and holds the only other end of its stdin. Once that is closed, the
command and all that it started are killed. `dvc_repro` runs DVC like this: a stage that outlives `make repro`
would block the next one, or promote a model after it.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading

LOCK = ".dvc/tmp/lock"  # which DVC holds unless a stage's command runs


def main() -> None:
    """Run the command, and exit with its status. If it is killed, kill all that it started."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=kill_with_starter, args=[process], daemon=True).start()
    if process.wait() == -signal.SIGKILL:
        os.killpg(0, signal.SIGKILL)
    sys.exit(process.returncode)


def kill_with_starter(process: "subprocess.Popen[bytes]") -> None:
    """Kill the command once the starter is gone, while DVC writes nothing and can start no stage."""
    os.read(sys.stdin.fileno(), 1)  # not `sys.stdin.read`, which may hold a lock when Python ends
    try:
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        process.kill()


if __name__ == "__main__":
    main()
