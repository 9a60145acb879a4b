"""Puts the transfers of an agent together from its configuration. Opens files, starts nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from ringfence_agent.api.view import ClusterView
from ringfence_agent.config import AgentConfig
from ringfence_agent.transfer.admission import KmsAdmission, address_towards
from ringfence_agent.transfer.clearance import Clearance
from ringfence_agent.transfer.config import TransferConfig
from ringfence_agent.transfer.hands import Hands
from ringfence_agent.transfer.hands_process import HandsProcess
from ringfence_agent.transfer.job import JobCopier
from ringfence_agent.transfer.ledger import Ledger
from ringfence_agent.transfer.progress import Meter
from ringfence_agent.transfer.record import Request
from ringfence_agent.transfer.service import Cluster, TransferService
from ringfence_agent.transfer.signing import open_signer
from ringfence_agent.transfer.yarn_commands import Yarn
from ringfence_zones.client_config import is_secure, read_http_access
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.kerberos import KerberosKeytab
from ringfence_zones.kms_admin import AdminClient
from ringfence_zones.kms_uri import KEY_PROVIDER, KmsUri, parse_kms_uri
from ringfence_zones.namenodes import default_filesystem

_LEDGER = "transfers.sqlite"


def open_transfers(
    config: AgentConfig,
    hadoop_conf: Path,
    cluster: Cluster,
    view: ClusterView,
    open_kms: Callable[[], AdminClient],
) -> TransferService:
    """The transfers of one state directory, which is locked. Raises ConfigError."""
    conf = read_hadoop_conf(hadoop_conf, "core-site.xml", "hdfs-site.xml")
    default_fs = default_filesystem(conf)
    settings = config.transfers

    ledger = Ledger(config.state_dir / _LEDGER)
    admission = KmsAdmission(open_kms, lambda: view.board.snapshot.policy, lambda: address_towards(_kms(conf)))

    def make_hands(request: Request) -> HandsProcess:
        return HandsProcess(default_fs, request.copy_as, hadoop_conf, keytab=_find_keytab(settings, request))

    def make_job(request: Request, hands: Hands, meter: Meter, stop: threading.Event) -> JobCopier:
        yarn = Yarn(
            hadoop_conf,
            request.copy_as,
            keytab=_find_keytab(settings, request),
            access=lambda: read_http_access(hadoop_conf, os.environ, config.kerberos),
            stop=stop,
        )
        return JobCopier(
            ledger,
            hands,
            yarn,
            meter,
            find_ungranted=admission.find_ungranted,
            queue=None if settings.job is None else settings.job.queue,
            at_least=settings.streams,
            stop=stop,
        )

    return TransferService(
        settings,
        ledger,
        Clearance(view.board, view.accounts, settings, is_secure=is_secure(hadoop_conf)),
        cluster,
        open_signer(config.state_dir),
        admission,
        cluster_name=default_fs,
        make_hands=make_hands,
        make_job=make_job,
    )


def _find_keytab(settings: TransferConfig, request: Request) -> KerberosKeytab | None:
    """Of the service principal that copies along the edge."""
    target = request.target_zone
    services = [settings.find_service(zone.path, target.path) for zone in request.source_zones] if target else []
    return next((service.kerberos for service in services if service is not None), None)


def _kms(conf: HadoopConf) -> KmsUri:
    provider = conf.get(KEY_PROVIDER)
    if not provider:
        raise ConfigError("core-site.xml names no KMS, and a grant is the KMS's to make")
    return parse_kms_uri(provider)
