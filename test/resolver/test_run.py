"""examples/run, the first command of the README: it answers without network, and stopping it leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import tempfile

import suite
import wire
from daemon import PATIENCE, free_port
from wire import Message

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "run")


class Run(suite.Case):
    def start(self, *arguments, port="1053"):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        process = subprocess.Popen(
            [RUN, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "BUILD_DIR": os.environ["FWD_BUILD"], "PORT": port, "TMPDIR": self.directory.name},
            start_new_session=True,
        )
        self.addCleanup(process.stdout.close)
        return process

    def ask(self, port, message):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", port))
            sock.send(message)
            return Message(sock.recv(4096))

    def test_demo_zone_and_clean_end(self):
        port = free_port()
        process = self.start(port=str(port))
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("linux/"):
                break
        self.assertIn(f"try: dig @127.0.0.1 -p {port} www.demo.test", lines)
        reply = self.ask(port, wire.query("www.demo.test"))
        self.assertEqual((reply.rcode, reply.sections[0][0][3]), (wire.NOERROR, bytes([192, 0, 2, 1])))
        self.assertEqual(self.ask(port, wire.query("nx.demo.test")).rcode, wire.NXDOMAIN)
        self.assertTrue(self.ask(port, wire.query("big.demo.test", wire.TXT)).flags & wire.TC)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE), 143)
        self.assertEqual(os.listdir(self.directory.name), [])
        left = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.getsid(int(pid)) == process.pid:
                    left.append(pid)
            except ProcessLookupError:
                pass
        self.assertEqual(left, [])

    def test_arguments_are_passed_on(self):
        process = self.start("-validate", "-json")
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0)
        self.assertTrue(re.search(r'"demo\.test\."', output), output)
        process = self.start("-conf", "/no/such/Corefile")
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 1)
        self.assertIn("open /no/such/Corefile: no such file or directory", output)


if __name__ == "__main__":
    suite.run()
