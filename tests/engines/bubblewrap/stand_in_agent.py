"""Stands in for the agent inside a sandbox: does the hand-off, then executes what is POSTed; standard library only.

How it behaves comes by the hand-off's ``env``: ``SILENT`` never answers, ``DIES`` ends with a word on stderr,
``REFUSES`` answers with an error, ``BABBLES`` with nonsense, ``ENDLESS`` with a line that has no end.
"""

import contextlib
import http.server
import io
import json
import os
import signal
import socket
import sys
import traceback


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        source = self.rfile.read(int(self.headers["Content-Length"])).decode()
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                exec(source, globals())
            except BaseException:
                traceback.print_exc(file=out)
        body = out.getvalue().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "host"

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, listener):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def get_request(self):
        return self.socket.accept()[0], ("host", 0)


def hand_over():
    connection = socket.socket(fileno=int(sys.argv[sys.argv.index("--handoff-fd") + 1]))
    data, fds, _, _ = socket.recv_fds(connection, 4, 1)
    data += connection.recv(4 - len(data), socket.MSG_WAITALL) if len(data) < 4 else b""
    body = json.loads(connection.recv(int.from_bytes(data, "big"), socket.MSG_WAITALL))
    return connection, socket.socket(fileno=fds[0]), body


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    connection, listener, given = hand_over()
    how = given["env"]
    if "SILENT" in how:
        signal.pause()
    if "DIES" in how:
        sys.exit("this agent dies")
    answer = {"ready": True, "api": "1.0", "package": "stand-in", "python": "3"}
    if "REFUSES" in how:
        answer = {"error": {"code": "IMAGE_NOT_USABLE", "message": "It has no kernel.", "remedy": "", "details": {}}}
    line = b"x" * 200_000 if "ENDLESS" in how else b"{[\n" if "BABBLES" in how else json.dumps(answer).encode() + b"\n"
    with contextlib.suppress(OSError):
        connection.sendall(line)
    connection.close()
    globals()["given"] = given
    Server(listener).serve_forever()


main()
