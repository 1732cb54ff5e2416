"""What other people's tools make of a hub and of an agent: OpenSSL, Prometheus, Avahi; where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
from tests.networks import eventually, fill
from tests.test_namespaces import inside, join, made, running

from fieldsync.network.hub import Hub


def tool(name):
    """The path of a tool, or no test."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


@pytest.fixture
def hub(network):
    with Hub(network.hub.replica, identity=network.hub_identity, page=("127.0.0.1", 0)) as hub:
        yield hub


def run(*command, stdin=""):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_openssl_sees_tls_1_3_and_a_request_for_a_certificate(hub):
    port = hub.url.rpartition(":")[2]
    _, out = run(tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", "-msg")
    assert "TLSv1.3" in out
    assert "CertificateRequest" in out
    code, out = run(tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2")
    assert code
    assert "Cipher is (NONE)" in out


def test_promtool_likes_the_metrics(network, hub):
    promtool = tool("promtool")
    device, identity = network.device("ada", "job/7")
    fill(device, "job/7", "a")
    assert device.sync(hub.url, identity=identity).complete
    with urllib.request.urlopen(f"{hub.page_url}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert run(promtool, "check", "metrics", stdin=text) == (0, "")


BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type> <listen>unix:path={path}</listen> <auth>EXTERNAL</auth>
  <policy context="default"> <allow send_destination="*"/> <allow receive_sender="*"/> <allow own="*"/> </policy>
</busconfig>
"""


@contextmanager
def avahi(namespace, folder):
    """Avahi's daemon in a namespace, with a bus of its own; gives the environment to ask it in."""
    tools = {name: tool(name) for name in ("avahi-daemon", "dbus-daemon", "avahi-browse")}
    bus, settings = folder / "bus.conf", folder / "avahi.conf"
    bus.write_text(BUS.format(path=folder / "bus"))
    settings.write_text("[server]\nuse-ipv4=yes\nuse-ipv6=no\n")
    environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder / 'bus'}"}
    own_run = "mkdir -p /run/avahi-daemon && mount -t tmpfs tmpfs /run/avahi-daemon"  # seen in this namespace only
    daemon = f"{own_run} && exec {tools['avahi-daemon']} -f {settings} --no-drop-root --no-chroot"
    with ExitStack() as stack:
        for command in ([tools["dbus-daemon"], f"--config-file={bus}", "--nofork"], ["sh", "-c", daemon]):
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command], env=environment, stderr=subprocess.DEVNULL
            )
            stack.enter_context(process)
            stack.callback(process.terminate)
            eventually((folder / "bus").exists)
        yield environment


def test_avahi_sees_an_agent(network, tmp_path):
    """On a cable between two namespaces, an agent at one end and Avahi at the other."""
    browse = [tool("avahi-browse"), "-r", "-t", "-p", "_fieldsync._tcp"]
    with made("avahi", "agent") as names:
        join(*names)
        for number, name in enumerate(names, 1):
            inside(name, "address", "add", f"10.79.0.{number}/24", "dev", "eth0")
        device, identity = network.device("ada", "job/7")
        files = "--db", device.path, "--identity", identity.folder
        with avahi(names[0], tmp_path) as environment, running(names[1], "agent", *files, "--lan", "--listen", 8767):

            def resolved():
                done = subprocess.run(
                    ["ip", "netns", "exec", names[0], *browse],
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                return [line.split(";") for line in done.stdout.splitlines() if line.startswith("=")]

            found = eventually(resolved)
    assert {(line[4], line[7], line[8]) for line in found} == {("_fieldsync._tcp", "10.79.0.2", "8767")}
    assert '"v=1"' in found[0][9]
    assert "ada" not in str(found)
