"""Brokers that speak TLS, ask for a certificate and a password; and the authority that has signed for all of them."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.relay.brokers import ActiveMQ, Nats, RabbitMQ, Tansu
from tests.relay.receiver import Receiver
from tests.servers import free_port, listens

USER, PASSWORD = "outbox", "hush-hush-hush"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Makes `ca.pem`, and by it `server.pem` and `client.pem` with their `.key`; and `other.pem`, of somebody else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ca", "other"):
            self._run("req", "-x509", *_KEY, *_named(name), "-days", "2", "-out", f"{name}.pem")
        for name in ("server", "client"):
            names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
            self._run("req", *_KEY, *_named(name), "-addext", names, "-out", f"{name}.csr")
            signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-copy_extensions", "copy")
            self._run("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def fields(self, ca: str = "ca.pem") -> tuple[str, ...]:
        """Of a definition."""
        files = {"ca": ca, "certificate": "client.pem", "certificate_key": "client.key"}
        return tuple(f'{field} = "{self.path(file)}"' for field, file in files.items())

    def for_servers(self) -> ssl.SSLContext:
        """Whoever comes must have a certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.path("ca.pem"))
        context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def for_clients(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        context.load_cert_chain(self.path("client.pem"), self.path("client.key"))
        return context

    def keystore(self, folder: Path) -> None:
        """As Java has it: `server.p12` and `trusted.p12`."""
        ours = ("-in", "server.pem", "-inkey", "server.key", "-passout", f"pass:{PASSWORD}")
        self._run("pkcs12", "-export", *ours, "-out", str(folder / "server.p12"))
        theirs = ["-file", self.path("ca.pem"), "-keystore", str(folder / "trusted.p12"), "-storepass", PASSWORD]
        command = ["keytool", "-importcert", "-noprompt", "-alias", "ca", "-storetype", "PKCS12", *theirs]
        subprocess.run(command, check=True, capture_output=True)

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


def _named(name: str) -> tuple[str, ...]:
    return ("-subj", f"/CN={name}", "-keyout", f"{name}.key")


class SecureRabbitMQ(RabbitMQ):
    def __init__(self, authority: Authority) -> None:
        self.authority, self.tls_port = authority, free_port()
        super().__init__()

    def prepare(self) -> None:
        super().prepare()
        for name in ("ca.pem", "server.pem", "server.key"):
            shutil.copy(self.authority.path(name), self.folder)
        files = {"cacertfile": "ca.pem", "certfile": "server.pem", "keyfile": "server.key"}
        with open(self.folder / "rabbitmq.conf", "a") as settings:
            settings.write(f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n")
            settings.writelines(f"ssl_options.{field} = {self.folder}/{file}\n" for field, file in files.items())
            settings.write("ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n")
            settings.write(f"default_user = {USER}\ndefault_pass = {PASSWORD}\n")

    def is_ready(self) -> bool:
        return super().is_ready() and listens(self.tls_port)

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def secure_url(self) -> str:
        return f"amqps://127.0.0.1:{self.tls_port}"


class SecureNats(Nats):
    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.options = {"tls": authority.for_clients(), "user": USER, "password": PASSWORD}
        super().__init__()

    def prepare(self) -> None:
        path = self.authority.path
        files = f'cert_file: "{path("server.pem")}", key_file: "{path("server.key")}", ca_file: "{path("ca.pem")}"'
        text = f'tls {{ {files}, verify: true }}\nauthorization {{ user: {USER}, password: "{PASSWORD}" }}\n'
        (self.folder / "nats.conf").write_text(text)

    def command(self) -> list[str]:
        return [*super().command(), "-c", str(self.folder / "nats.conf")]

    @property
    def secure_url(self) -> str:
        return f"nats+tls://127.0.0.1:{self.port}"


class SecureActiveMQ(ActiveMQ):
    """Anybody may read, without TLS."""

    def __init__(self, authority: Authority) -> None:
        self.authority, self.tls_port = authority, free_port()
        super().__init__()

    def prepare(self) -> None:
        super().prepare()
        self.authority.keystore(self.folder)
        file = self.folder / "activemq.xml"
        stores = f'keyStore="{self.folder}/server.p12" trustStore="{self.folder}/trusted.p12"'
        passwords = f'keyStorePassword="{PASSWORD}" trustStorePassword="{PASSWORD}"'
        types = 'keyStoreType="PKCS12" trustStoreType="PKCS12"'
        user = f'<authenticationUser username="{USER}" password="{PASSWORD}" groups="anonymous"/>'
        tls = f"stomp+ssl://127.0.0.1:{self.tls_port}?needClientAuth=true"
        text = file.read_text().replace("<users/>", f"<users>{user}</users>")
        context = f"<sslContext><sslContext {stores} {passwords} {types}/></sslContext>"
        text = text.replace("<persistenceAdapter>", f"{context}\n    <persistenceAdapter>")
        text = text.replace(
            "<transportConnectors>", f'<transportConnectors><transportConnector name="tls" uri="{tls}"/>'
        )
        file.write_text(text)

    def is_ready(self) -> bool:
        return super().is_ready() and listens(self.tls_port)

    @property
    def secure_url(self) -> str:
        return f"stomps://127.0.0.1:{self.tls_port}"


class SecureTansu(Tansu):
    """Its own TLS can't be switched on (`--cert` and `--key` exclude each other), so that somebody is before it."""

    def __init__(self, authority: Authority) -> None:
        self._end = _TlsEnd(authority.for_servers())
        self.options = {
            "security.protocol": "SSL",
            "ssl.ca.location": authority.path("ca.pem"),
            "ssl.certificate.location": authority.path("client.pem"),
            "ssl.key.location": authority.path("client.key"),
        }
        super().__init__(self._end)  # type: ignore[arg-type]  # it has a wire's port and target

    def remove(self) -> None:
        super().remove()
        self._end.close()

    @property
    def secure_url(self) -> str:
        return self.url.replace("kafka", "kafkas", 1)


class _TlsEnd:
    """Takes TLS at `port` and goes on without it to `target`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.target = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, here = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(_pump(reader, here), _pump(there, writer))

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


class SecureReceiver(Receiver):
    def __init__(self, authority: Authority) -> None:
        self._context = authority.for_servers()
        super().__init__()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(5)
        return self._context.wrap_socket(connection, server_side=True), address

    @property
    def secure_url(self) -> str:
        """By a name: the certificate is of it, though it is an address that is connected to."""
        return f"https://localhost:{self.port}/hook"

    def remove(self) -> None:
        self.close()
