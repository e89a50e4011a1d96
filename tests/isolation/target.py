"""What one may try to reach: run on the host, or in another sandbox, until its stdin ends.

It listens on the loopback and on an abstract socket, makes shared memory of both kinds and a file, and says where as
one line of JSON. Its own command line and the names of its files carry the mark. Standard library only.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import socket
import sys

IPC_CREAT, IPC_RMID = 0o1000, 0
PR_SET_DUMPABLE = 4


def main(mark: str, uid: int, file: str) -> None:
    """Offer all of it."""
    if os.geteuid() == 0 and uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    os.umask(0o022)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 1)  # who changed his uid could not be traced anyway
    key = int.from_bytes(os.urandom(3), "little") + 1
    memory = libc.shmget(key, 4096, IPC_CREAT | 0o666)
    files = [f"/dev/shm/{mark}", f"/tmp/{mark}", file]
    with contextlib.ExitStack() as stack:
        stack.callback(libc.shmctl, memory, IPC_RMID, None)
        for path in files:
            pathlib.Path(path).write_text("found\n")
            stack.callback(os.unlink, path)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{mark}")
        abstract.listen()
        loopback = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        facts = {"mark": mark, "pid": os.getpid(), "key": key, "abstract": mark, "port": loopback.getsockname()[1]}
        print(json.dumps(facts), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
