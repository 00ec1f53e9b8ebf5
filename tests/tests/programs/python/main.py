"""What a Python program leans on: threads, processes, shared memory, asyncio, TLS, file watching, a terminal.

Prints a line per part."""

import asyncio
import ctypes
import multiprocessing
import os
import pty
import signal
import sqlite3
import ssl
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import shared_memory

IN_CLOSE_WRITE = 8


def threads(_directory):
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: n * n, range(1000))) == 332833500


def count(total, semaphore):
    for _ in range(100):
        with semaphore:
            total.value += 1


def processes(_directory):
    """Semaphores are files in /dev/shm (sem_overview(7)); every way to start a process is used."""
    for method in ["fork", "spawn", "forkserver"]:
        context = multiprocessing.get_context(method)
        total, semaphore = context.Value("i", 0, lock=False), context.Semaphore(1)
        workers = [context.Process(target=count, args=(total, semaphore)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0, (method, worker.exitcode)
        assert total.value == 200, (method, total.value)
    with multiprocessing.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]


def memory(_directory):
    block = shared_memory.SharedMemory(create=True, size=4096)
    try:
        again = shared_memory.SharedMemory(block.name)
        block.buf[7] = 42
        assert again.buf[7] == 42
        again.close()
    finally:
        block.close()
        block.unlink()


def children(_directory):
    shell = subprocess.run("cat; exit 3", shell=True, input=b"in", capture_output=True)
    assert (shell.stdout, shell.returncode) == (b"in", 3)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as sleeper:
        sleeper.send_signal(signal.SIGKILL)
        assert sleeper.wait() == -signal.SIGKILL


def asynchronous(directory):
    async def serve_and_ask():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        path = os.path.join(directory, "socket")
        async with await asyncio.start_unix_server(echo, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"line\n")
            assert await reader.readline() == b"line\n"
            writer.close()
        child = await asyncio.create_subprocess_exec("sh", "-c", "echo child", stdout=subprocess.PIPE)
        out, _ = await child.communicate()
        assert out == b"child\n"

    asyncio.run(serve_and_ask())


def secure(directory):
    key, cert = os.path.join(directory, "key.pem"), os.path.join(directory, "cert.pem")
    curve = "ec_paramgen_curve:prime256v1"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    at_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    at_server.load_cert_chain(cert, key)
    at_client = ssl.create_default_context(cafile=cert)

    async def talk():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=at_server)
        port = server.sockets[0].getsockname()[1]
        to = {"ssl": at_client, "server_hostname": "localhost"}
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **to)
        writer.write(b"secret\n")
        assert await reader.readline() == b"secret\n"
        writer.close()
        server.close()

    asyncio.run(talk())


def watching(directory):
    libc = ctypes.CDLL(None, use_errno=True)
    inotify = libc.inotify_init1(0)
    assert inotify >= 0, os.strerror(ctypes.get_errno())
    assert libc.inotify_add_watch(inotify, directory.encode(), IN_CLOSE_WRITE) >= 0, os.strerror(ctypes.get_errno())
    with open(os.path.join(directory, "watched"), "w") as file:
        file.write("now")
    event = os.read(inotify, 4096)
    _, mask, _, length = struct.unpack_from("iIII", event)
    assert mask == IN_CLOSE_WRITE and event[16 : 16 + length].rstrip(b"\0") == b"watched"
    os.close(inotify)


def database(directory):
    connection = sqlite3.connect(os.path.join(directory, "base"))
    assert connection.execute("pragma journal_mode = wal").fetchone() == ("wal",)
    with connection:
        connection.execute("create table t (n)")
        connection.executemany("insert into t values (?)", [(n,) for n in range(100)])
    assert connection.execute("select sum(n) from t").fetchone() == (4950,)
    connection.close()


def terminal(_directory):
    """A terminal of our own."""
    child, master = pty.fork()
    if child == 0:
        os.execlp("sh", "sh", "-c", "test -t 0 && tty >/dev/null && stty size >/dev/null && exit 7; exit 1")
    try:
        while os.read(master, 4096):
            pass
    except OSError:  # EIO: the other side has closed
        pass
    os.close(master)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status


def main():
    parts = [threads, processes, memory, children, asynchronous, secure, watching, database, terminal]
    with tempfile.TemporaryDirectory(prefix="programs-python-") as directory:
        for part in parts:
            part(directory)
            print("OK", part.__name__, flush=True)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    left = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
    print("LEFT", left.pid, flush=True)
    sys.exit(42)


if __name__ == "__main__":
    main()
