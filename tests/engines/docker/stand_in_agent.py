"""Stands in for the agent where only the engine is tested: one JSON line with a shell command, one with its result.

It must run with the Python of a bare image, so it uses nothing but the standard library.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    knock = socket.socket(socket.AF_UNIX)
    knock.connect(sys.argv[sys.argv.index("--handoff") + 1])
    data, fds, _, _ = socket.recv_fds(knock, 65536, 1)
    (length,) = struct.unpack(">I", data[:4])
    while len(data) < 4 + length:
        data += knock.recv(65536)
    settings = json.loads(data[4:])
    behave = settings["env"].get("BEHAVE", "")
    if behave == "die":
        sys.exit("the stand-in dies as told")
    if behave == "silent":
        signal.pause()
    if behave == "refuse":
        body = {"code": "IMAGE_NOT_USABLE", "message": "It has no ipykernel.", "remedy": "", "details": {}}
        knock.sendall(json.dumps({"error": body}).encode() + b"\n")
        sys.exit(1)
    if behave == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listening = socket.socket(fileno=fds[0])
    knock.sendall(b'{"ready": true, "api": "1.0", "package": "stand-in", "python": "3"}\n')
    knock.close()
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=answer, args=(connection, settings), daemon=True).start()


def answer(connection: socket.socket, settings: dict) -> None:
    with connection, connection.makefile("rw") as stream:
        command = json.loads(stream.readline())
        if command == "settings":
            reply = settings
        elif command == "exit":
            os._exit(7)
        elif command == "eat":
            held = []
            while True:
                held.append(b"x" * 2**20)
        else:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
            reply = {"out": done.stdout, "err": done.stderr, "code": done.returncode}
        stream.write(json.dumps(reply) + "\n")
        stream.flush()


main()
