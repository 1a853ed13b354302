"""Every setting of Wardstream, in one place, read from the environment (`WARDSTREAM_*`) and from nowhere else.

`wardstream up` writes the addresses of the embedded servers to `<home>/stack.json`; a command that is given no
address of its own finds them there, so that the same code serves a laptop and an external cluster.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.errors import StackDown


class Settings(BaseSettings):
    """What the environment says. Addresses left empty mean: the embedded stack under `home`."""

    model_config = SettingsConfigDict(env_prefix="WARDSTREAM_", extra="ignore", hide_input_in_errors=True)

    home: Path = Field(Path(".wardstream"), description="folder of all local data: servers, keys, logs, ports")

    database: SecretStr = Field(
        SecretStr(""),
        description="SQLAlchemy URL of the key store, postgresql+pg8000://...; empty: SQLite below home",
    )
    master_key: SecretStr = Field(SecretStr(""), description="32 bytes in base64 that seal the keyring file")
    passphrase: SecretStr = Field(SecretStr(""), description="what the keyring file is sealed with, by Argon2id")
    token: SecretStr = Field(SecretStr(""), description="a session's token; empty: the one in <home>/session")
    policy: Path | None = Field(None, description="TOML file of the access policy; default schemas/policy.toml")
    ledger: Path | None = Field(
        None, description="folder of the ledger of erasures, outside every backup; default <home>/ledger"
    )
    anchor: Path | None = Field(
        None, description="folder of the audit's signed heads, on another disk; default <home>/anchor"
    )

    kafka: str = Field("", description="bootstrap servers of an external Kafka, host:port[,host:port]")
    kafka_security_protocol: str = Field("PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    kafka_sasl_mechanism: str = Field("SCRAM-SHA-512", description="SASL mechanism, where the protocol has SASL")
    kafka_username: str = Field("", description="SASL user name")
    kafka_password: SecretStr = Field(SecretStr(""), description="SASL password")
    kafka_ca: Path | None = Field(None, description="PEM file of the authority that signed the brokers' certificates")
    kafka_cert: Path | None = Field(None, description="PEM file of our client certificate (mutual TLS)")
    kafka_key: Path | None = Field(None, description="PEM file of our client key (mutual TLS)")
    kafka_replication: int = Field(1, description="replication factor of topics we create; 3 on a real cluster")

    elasticsearch: str = Field("", description="URL of an external Elasticsearch, https://host:port")
    elasticsearch_ca: Path | None = Field(None, description="PEM file of the authority that signed its certificate")
    elasticsearch_cert: Path | None = Field(None, description="PEM file of our client certificate (mutual TLS)")
    elasticsearch_key: Path | None = Field(None, description="PEM file of its key, where it is not in the same file")
    elasticsearch_timeout: float = Field(
        30.0, description="seconds without an answer after which a request is repeated"
    )
    elasticsearch_api_key: SecretStr = Field(SecretStr(""), description="encoded API key")

    index_retention_days: dict[str, PositiveInt] = Field(
        {}, description='days that a domain\'s documents are kept, as JSON: {"ehr": 3650}; else as the registry says'
    )

    kafka_port: int = Field(9092, description="embedded Kafka: preferred port; the next free one is taken")
    elasticsearch_port: int = Field(9200, description="embedded Elasticsearch: preferred port; else the next free one")
    metrics_port: int = Field(9410, description="Prometheus endpoint: first port tried by each process")

    objects: str = Field(
        "", description="where images are kept, sealed: a folder or s3://bucket/prefix; default <home>/objects"
    )

    peers: Path | None = Field(
        None, description="TOML file with [[peer]] profiles: charset, zone, identifier precedence"
    )
    mllp_max_bytes: int = Field(10_000_000, description="an HL7 message or a FHIR resource above this is refused")
    mllp_idle_seconds: float = Field(300.0, description="an idle MLLP connection is closed after this")
    fhir_max_bytes: int = Field(64_000_000, description="a request to the FHIR listener above this is refused with 413")
    fhir_idle_seconds: float = Field(60.0, description="a connection to the FHIR listener that asks nothing ends then")
    fhir_body_seconds: float = Field(30.0, description="a request's body may take this, and a second more each 16 KB")
    dicom_calling: list[str] = Field(
        [],
        description='who may associate, as JSON: ["CT1@10.0.0.7", "MR*@10.1.0.0/16"]; empty: all of loopback alone',
    )
    dicom_associations: int = Field(32, ge=1, description="associations at once; further ones are told to come later")
    dicom_acse_seconds: float = Field(15.0, gt=0, description="an association must be asked for within this")
    dicom_idle_seconds: float = Field(60.0, gt=0, description="an association on which nothing comes is aborted then")
    dicom_message_seconds: float = Field(
        30.0, gt=0, description="a DICOM message may take this, and a second more each 16 KB"
    )
    dicom_conflict: Literal["refuse", "keep"] = Field(
        "keep", description="of a SOP instance that comes with another content: keep both, or refuse it (0111H)"
    )
    tls_cert: Path | None = Field(None, description="PEM chain of our listeners; set: they speak TLS and nothing else")
    tls_key: Path | None = Field(None, description="PEM file of its key, where it is not in the same file")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authority whose clients are let in; set: none comes in without a certificate"
    )
    edge_bytes: int = Field(64_000_000, description="messages a feed holds unconfirmed; beyond it senders wait")
    edge_patience_seconds: float = Field(5.0, description="longest wait for room at the edge; then AR overloaded")
    worker_batch: int = Field(500, description="messages an agent takes at once")
    worker_bytes: int = Field(16_000_000, description="sealed bytes after which an agent's batch is full")
    worker_linger_seconds: float = Field(0.05, description="longest wait for a batch to fill")
    scoring: bool = Field(True, description="score events on the stream: NEWS2, and the models that are promoted")
    planning: bool = Field(True, description="plan sites whose beds are declared, and raise alerts, as events come")
    plan_seconds: float = Field(0.5, description="time of one plan after something has changed")
    plan_improve_seconds: float = Field(30.0, description="thought about a plan while nothing changes; 0: none")
    surveillance: bool = Field(True, description="keep charts of outcomes as events come, and raise their signals")
    chart_odds_ratio: float = Field(2.0, gt=1, description="odds against those expected that charts look for")
    chart_run_length: float = Field(5000.0, gt=10, description="outcomes from one false alarm of a CUSUM to the next")
    images: bool = Field(True, description="look at the pixels of images as they come: quality, preview, similarity")
    image_processes: int = Field(1, ge=1, description="images that are looked at, at once")
    image_memory_bytes: int = Field(2_000_000_000, description="memory of a process that looks at an image")
    image_seconds: float = Field(30.0, description="longest look at one image")
    study_quiet_seconds: float = Field(60.0, description="a study of which nothing came for so long is whole")
    dead_letter_limit: float = Field(0.5, description="share of refused messages above which an agent stops")

    def kafka_servers(self) -> str:
        return self.kafka or self._stack("kafka")

    def elasticsearch_url(self) -> str:
        return self.elasticsearch or self._stack("elasticsearch")

    def stack_file(self) -> Path:
        return self.home / "stack.json"

    def _stack(self, server: str) -> str:
        """Address of an embedded server as `up` wrote it. Raises StackDown where no stack was started."""
        try:
            stack: dict[str, Any] = json.loads(self.stack_file().read_text())
            return str(stack[server])
        except (FileNotFoundError, KeyError, ValueError):
            hint = f"run `wardstream up --detach`, or set WARDSTREAM_{server.upper()}"
            raise StackDown(f"no {server} address: {hint}") from None


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
