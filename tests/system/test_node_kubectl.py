"""logs, exec, attach, cp and port-forward: an unmodified kubectl, the API server, the node, and back. Needs root and kubectl."""
import json
import os
import shutil
import socket
import subprocess
import time

import pytest

from nodetest import binary

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("kubectl"), reason="needs root and kubectl")

NAME = "pytest-kubectl"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    config = str(tmp_path_factory.mktemp("kube") / "config")
    env = dict(os.environ, KUBECONFIG=config)
    subprocess.run([binary(), "down", "--name", NAME], env=env, stdout=subprocess.DEVNULL)
    subprocess.run([binary(), "up", "--offline", "--name", NAME], env=env, check=True, stdout=subprocess.DEVNULL)

    def run(*args, ok=True, stdin=None, timeout=30):
        done = subprocess.run(["kubectl"] + list(args), env=env, capture_output=True, text=True, input=stdin, timeout=timeout)
        assert not ok or done.returncode == 0, (args, done.stdout, done.stderr)
        return done

    run.env = env
    yield run
    subprocess.run([binary(), "down", "--name", NAME], env=env, check=True, stdout=subprocess.DEVNULL)
    assert not [x for x in os.listdir("/run/netns") if x == "postern-" + NAME or x.startswith("postern-" + NAME + ".")]


def pod(kubectl, name, script, **spec):
    spec = dict({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "x", "command": ["sh", "-c", script]}]}, **spec)
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}))
    kubectl("wait", "--for=condition=Ready", "pod/" + name, "--timeout=20s")


@pytest.fixture(scope="module")
def box(kubectl):
    pod(kubectl, "box", "echo ready; exec sleep infinity")
    return "box"


def test_exec(kubectl, box):
    assert kubectl("exec", box, "--", "echo", "a b").stdout == "a b\n"
    done = kubectl("exec", box, "--", "sh", "-c", "echo out; echo err >&2; exit 42", ok=False)
    assert (done.stdout, done.returncode) == ("out\n", 42) and done.stderr.startswith("err\n")
    assert kubectl("exec", "-i", box, "--", "sh", "-c", "wc -c", stdin="x" * 300000).stdout.strip() == "300000"
    done = kubectl("exec", box, "--", "no-such-command", ok=False)
    assert done.returncode != 0 and '"no-such-command": executable file not found in $PATH' in done.stderr
    done = kubectl("exec", box, "-c", "none", "--", "true", ok=False)
    assert done.returncode != 0 and "container none is not valid for pod box" in done.stderr
    assert len(kubectl("exec", box, "--", "head", "-c", "5000000", "/dev/zero").stdout) == 5000000


def test_exec_terminal(kubectl, box):
    import pty
    parent, child = pty.openpty()
    import fcntl
    import struct
    import termios
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    p = subprocess.Popen(["kubectl", "exec", "-it", box, "--", "sh", "-c", "until [ \"$(stty size)\" = '33 99' ]; do :; done; echo sized; read x; echo got $x; exit 6"],
                         env=kubectl.env, stdin=child, stdout=child, stderr=child, close_fds=True)
    os.close(child)
    text = b""
    while b"sized" not in text:
        text += os.read(parent, 1024)
    os.write(parent, b"hello\r")
    while b"got hello" not in text:
        text += os.read(parent, 1024)
    try:
        while os.read(parent, 1024):
            pass
    except OSError:
        pass
    assert p.wait(10) == 6
    os.close(parent)


def test_cp(kubectl, box, tmp_path):
    data = os.urandom(3000000)
    (tmp_path / "a").write_bytes(data)
    kubectl("cp", str(tmp_path / "a"), box + ":/tmp/a")
    kubectl("cp", box + ":/tmp/a", str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == data


def test_logs(kubectl):
    pod(kubectl, "talker", "for i in 1 2 3; do echo line $i; done; echo problem >&2; printf unfinished; exec sleep infinity")
    while "problem" not in kubectl("logs", "talker").stdout:
        pass
    assert kubectl("logs", "talker").stdout == "line 1\nline 2\nline 3\nproblem\n"
    assert kubectl("logs", "talker", "--tail=2").stdout == "line 3\nproblem\n"
    assert kubectl("logs", "talker", "--tail=0").stdout == ""
    assert kubectl("logs", "talker", "--limit-bytes=9").stdout == "line 1\nli"
    assert kubectl("logs", "talker", "--since=1h").stdout.startswith("line 1")
    assert kubectl("logs", "talker", "--since-time=2099-01-01T00:00:00Z").stdout == ""
    stamp, text = kubectl("logs", "talker", "--timestamps", "--tail=1").stdout.split(" ", 1)
    assert text == "problem\n" and stamp.startswith("20") and stamp.endswith("Z")
    done = kubectl("logs", "talker", "--previous", ok=False)
    assert 'previous terminated container "c" in pod "talker" not found' in done.stderr


def test_logs_follow_and_rotation(kubectl):
    pod(kubectl, "chatter", "echo start; while [ ! -e /tmp/go ]; do sleep 0.02; done; i=0; yes 'a line of some forty bytes, or so it seems' | head -n 400000; echo end; "
                            "while [ ! -e /tmp/stop ]; do sleep 0.02; done", restartPolicy="Never")
    p = subprocess.Popen(["kubectl", "logs", "-f", "chatter"], env=kubectl.env, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "start\n"
    kubectl("exec", "chatter", "--", "touch", "/tmp/go")
    n = 0
    for line in p.stdout:
        if line == "end\n":
            break
        n += 1
    kubectl("exec", "chatter", "--", "touch", "/tmp/stop")
    assert p.stdout.read() == "" and p.wait(10) == 0                   # it ends with the container
    assert n == 400000                                                  # across rotations, not a line lost
    assert kubectl("logs", "chatter", "--tail=1").stdout == "end\n"
    whole = kubectl("logs", "chatter").stdout.splitlines()
    assert 200000 < len(whole) < 400002 and whole[-1] == "end"         # three files of 10 MiB are kept
    assert len(kubectl("logs", "chatter", "--tail=200000").stdout.splitlines()) == 200000


def test_previous_logs(kubectl):
    pod(kubectl, "phoenix", "if [ -e /d/x ]; then echo second; exec sleep infinity; fi; touch /d/x; echo first; sleep 0.3; exit 1", volumes=[{"name": "d", "emptyDir": {}}],
        containers=[{"name": "c", "image": "x", "command": ["sh", "-c", "if [ -e /d/x ]; then echo second; exec sleep infinity; fi; touch /d/x; echo first; sleep 0.3; exit 1"],
                     "volumeMounts": [{"name": "d", "mountPath": "/d"}]}])
    while kubectl("get", "pod", "phoenix", "-o", "jsonpath={.status.containerStatuses[0].restartCount}").stdout != "1":
        pass
    assert kubectl("logs", "phoenix", "--previous").stdout == "first\n"


def test_attach(kubectl):
    pod(kubectl, "listener", "", containers=[{"name": "c", "image": "x", "stdin": True, "stdinOnce": True, "command": ["sh", "-c", "while read x; do echo got $x; done; echo bye"]}],
        restartPolicy="Never")
    p = subprocess.Popen(["kubectl", "attach", "-i", "listener"], env=kubectl.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    p.stdin.write("one\n")
    assert p.stdout.readline() == "got one\n"
    p.stdin.close()
    assert p.stdout.readline() == "bye\n"
    p.wait(10)


def test_port_forward(kubectl):
    pod(kubectl, "web", "", containers=[{"name": "c", "image": "x", "command": ["python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"]}])
    p = subprocess.Popen(["kubectl", "port-forward", "pod/web", ":8000"], env=kubectl.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port = int(p.stdout.readline().split(":")[1].split()[0])
    until = time.monotonic() + 10
    while True:
        try:
            s = socket.create_connection(("127.0.0.1", port))
            s.settimeout(5)
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            got = s.recv(100)
        except OSError:
            got = b""
        if got.startswith(b"HTTP/1.0 200") or time.monotonic() > until:
            break
    assert got.startswith(b"HTTP/1.0 200")
    p.terminate()
    p.wait(10)


def raw(request):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect("/run/postern/%s/node.sock" % NAME)
    s.sendall(request)
    return s.recv(4096).decode()


def test_bad_requests(kubectl, box):
    for path in ("/containerLogs/default/../box/c", "/containerLogs/default/box%2f..%2fx/c", "/containerLogs/default/box/..%2f..%2fetc", "/containerLogs//box/c"):
        assert raw(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode()).split()[1] in ("400", "404"), path
    assert raw(b"GET /containerLogs/default/box/c?tailLines=-1 HTTP/1.1\r\nhost: x\r\n\r\n").split()[1] == "400"
    assert raw(b"GET /containerLogs/default/box/c?sinceTime=noon HTTP/1.1\r\nhost: x\r\n\r\n").split()[1] == "400"
    assert raw(b"GET /containerLogs/default/none/c HTTP/1.1\r\nhost: x\r\n\r\n").split()[1] == "404"
    assert raw(b"POST /exec/default/box/c HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").split()[1] == "400"
    assert raw(b"POST /exec/default/box/c?command=id HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").split()[1] in ("400", "403")
    assert raw(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").split()[1] == "404"
    assert oct(os.stat("/run/postern/%s/node.sock" % NAME).st_mode & 0o777) == "0o600"


def test_node_killed(kubectl, box):
    pid = int(open("/run/postern/%s/node.pid" % NAME).read())
    os.kill(pid, 9)
    start = time.monotonic()
    while kubectl("exec", box, "--", "true", ok=False).returncode != 0:
        assert time.monotonic() - start < 2
    assert kubectl("get", "pod", box, "-o", "jsonpath={.status.containerStatuses[0].restartCount}").stdout == "0"
    assert kubectl("logs", box).stdout == "ready\n"
