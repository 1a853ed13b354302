"""The embedded Elasticsearch: a real node of the core server, hosted in this Python by JPype.

Run as `python -m infra.local.elasticsearch FOLDER PORT TRANSPORT_PORT`; SIGTERM closes the node.
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.local.artifacts import JAVA_HOME, Jar, install

HEAP = "512m"
VERSION = "9.2.0"
NETTY = "modules/transport-netty4"

DESCRIPTOR = f"""\
name=transport-netty4
description=HTTP and transport over Netty
version={VERSION}
elasticsearch.version={VERSION}
java.version=21
classname=org.elasticsearch.transport.netty4.Netty4Plugin
modulename=org.elasticsearch.transport.netty4
"""


def prepare(folder: Path, console: Console) -> None:
    """Lay out the node's home with verified jars; jars of another version leave."""

    def place(jar: Jar) -> Path:
        return folder / (NETTY if jar.group == "io.netty" or jar.artifact == "transport-netty4" else "lib") / jar.name

    jars = set(install("elasticsearch", place, console))
    for stray in {*(folder / "lib").glob("*"), *(folder / NETTY).glob("*.jar")} - jars:
        stray.unlink()
    for empty in ("config", "plugins"):
        (folder / empty).mkdir(exist_ok=True)
    (folder / NETTY / "plugin-descriptor.properties").write_text(DESCRIPTOR)


def run(folder: Path, port: int, transport_port: int) -> None:
    """Start the node and keep it until SIGTERM or SIGINT."""
    import jpype

    jpype.startJVM(
        str(JAVA_HOME / "lib" / "server" / "libjvm.so"),
        f"-Xms{HEAP}",
        f"-Xmx{HEAP}",
        f"--module-path={folder / 'lib'}",
        "--add-modules=ALL-MODULE-PATH",
        "--enable-native-access=org.elasticsearch.nativeaccess,org.apache.lucene.core,ALL-UNNAMED",
        "-XX:-UsePerfData",
        "-XX:TieredStopAtLevel=1",
        f"-Djava.io.tmpdir={_temporary(folder)}",
    )
    node = _node(
        {
            "path.home": folder,
            "path.data": folder / "data",
            "path.repo": folder / "snapshots",
            "cluster.name": "wardstream",
            "node.name": "embedded",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.host": "127.0.0.1",
            "http.port": port,
            "transport.host": "127.0.0.1",
            "transport.port": transport_port,
            # A laptop's disk is often nearly full; the default would then refuse every write.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            # An index is made by us, with its mapping. A late write to one that was deleted must not bring it back.
            "action.auto_create_index": "false",
            "logger.level": "INFO",
        }
    )
    node.start()
    ended = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):  # after start: the JVM installs handlers of its own
        signal.signal(one, lambda *_: ended.set())
    while not ended.wait(0.2):
        pass
    node.close()


def _temporary(folder: Path) -> Path:
    place = folder / "tmp"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def _node(settings: dict[str, Any]) -> Any:
    # JClass and never `from org.elasticsearch import ...`: jpype.imports looks into the jars to see what a package
    # holds, and the node, which opens one of them as a file system of its own, then finds it open and dies, often.
    from jpype import JClass

    configurator = JClass("org.elasticsearch.common.logging.LogConfigurator")
    plugins = JClass("org.elasticsearch.plugins.PluginsLoader")
    builder = JClass("org.elasticsearch.common.settings.Settings").builder()
    for name, value in settings.items():
        builder.put(name, str(value))
    built = builder.build()
    configurator.configureESLogging()
    configurator.configureWithoutConfig(built)
    environment = JClass("org.elasticsearch.env.Environment")(built, None)
    loader = plugins.createPluginsLoader(
        plugins.loadModulesBundles(environment.modulesDir()),
        plugins.loadPluginsBundles(environment.pluginsDir()),
        JClass("java.util.Map").of(),
    )
    return JClass("org.elasticsearch.node.Node")(environment, loader)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
