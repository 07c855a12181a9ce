"""All controllers in one process, on shared informers; as leader among several processes if asked to be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from controllers.attachdetach import AttachDetachController
from controllers.certificates.controllers import Approver, Cleaner, Signer
from controllers.certificates.signer import Authority
from controllers.config import Config
from controllers.controller import Context, Controller
from controllers.cronjob import CronJobController
from controllers.daemonset.controller import DaemonSetController
from controllers.deployment.controller import DeploymentController
from controllers.disruption import DisruptionController
from controllers.endpoints.endpoints import EndpointsController
from controllers.endpoints.endpointslice import EndpointSliceController
from controllers.endpoints.mirroring import MirroringController
from controllers.ephemeralvolume import EphemeralVolumeController
from controllers.garbage.collector import GarbageCollector
from controllers.job.controller import JobController, TTLAfterFinishedController
from controllers.loadbalancer.controller import LoadBalancerController
from controllers.namespace import NamespaceController
from controllers.nodes.eviction import TaintEvictionController
from controllers.nodes.ipam import NodeIPAMController
from controllers.nodes.lifecycle import NodeLifecycleController
from controllers.nodes.podgc import PodGCController
from controllers.persistentvolume.binder import PersistentVolumeBinder
from controllers.persistentvolume.localpath import LocalPathProvisioner
from controllers.podautoscaler.controller import HorizontalPodAutoscalerController
from controllers.replicaset.controller import ReplicaSetController, ReplicationControllerController
from controllers.resourcequota import ResourceQuotaController
from controllers.rootca import RootCAController
from controllers.serviceaccount import ServiceAccountController
from controllers.servicecidrs import IPAddressController, ServiceCIDRController
from controllers.statefulset.controller import StatefulSetController
from controllers.storageprotection import AttributesClassProtection, ClaimProtection, VolumeProtection
from controllers.tokens.accounts import AccountTokenController
from controllers.tokens.bootstrap import BootstrapSigner, TokenCleaner
from controllers.tokens.legacy import LegacyTokenCleaner
from navarch.api.signing import load_key
from navarch.client.client import Client
from navarch.client.informer import SharedInformers
from navarch.client.leader import LeaderElector
from navarch.world import World, keep_running, name_suffix

log = logging.getLogger(__name__)

LEASE = ("kube-system", "kube-controller-manager")

Factory = Callable[[Context], Controller]


def _root_ca(bundle: str) -> Factory:
    return lambda context: RootCAController(context, bundle)


class Manager:
    """``Manager(client, world, config).run()`` works until cancelled.

    ``root_ca`` is the PEM text of the CA that pods get to know the API server by; without it that controller stays
    away. ``identity`` names this process in the leader's Lease.
    """

    def __init__(
        self, client: Client, world: World, config: Config | None = None, *, root_ca: str = "", identity: str = ""
    ) -> None:
        self.client, self.world = client, world
        self.config = config or Config()
        self.root_ca = root_ca
        self.identity = identity or f"controllers_{name_suffix(world, 8)}"
        self.informers = SharedInformers(client, world)
        self.context = Context(client, world, self.config, self.informers)
        self.leading = False
        self.controllers: list[Controller] = []

    @property
    def ready(self) -> bool:
        """Working with complete caches, or waiting to become leader."""
        return not self.leading or self.informers.synced

    def factories(self) -> dict[str, Factory]:
        """All controllers by name, in the order in which they start."""
        out: dict[str, Factory] = {
            c.name: c
            for c in (
                NamespaceController,
                ServiceAccountController,
                NodeIPAMController,
                NodeLifecycleController,
                TaintEvictionController,
                PodGCController,
                ReplicaSetController,
                ReplicationControllerController,
                DeploymentController,
                EndpointSliceController,
                EndpointsController,
                MirroringController,
                ResourceQuotaController,
                DisruptionController,
                JobController,
                TTLAfterFinishedController,
                CronJobController,
                DaemonSetController,
                StatefulSetController,
                HorizontalPodAutoscalerController,
                PersistentVolumeBinder,
                EphemeralVolumeController,
                AttachDetachController,
                ClaimProtection,
                VolumeProtection,
                AttributesClassProtection,
                ServiceCIDRController,
                IPAddressController,
                LegacyTokenCleaner,
                Approver,
                Cleaner,
                BootstrapSigner,
                TokenCleaner,
            )
        }
        config = self.config
        if config.cluster_signing_cert_file and config.cluster_signing_key_file:
            certificate = Path(config.cluster_signing_cert_file).read_bytes()
            signing_key = Path(config.cluster_signing_key_file).read_bytes()
            authority = Authority.load(certificate, signing_key, config.cluster_signing_duration)
            out[Signer.name] = lambda context: Signer(context, authority)
        if config.service_account_private_key_file:
            key = load_key(Path(config.service_account_private_key_file).read_bytes())
            out[AccountTokenController.name] = lambda context: AccountTokenController(context, key, self.root_ca)
        if config.local_path_root:
            out[LocalPathProvisioner.name] = lambda context: LocalPathProvisioner(context, config.local_path_root)
        if config.load_balancer_range:
            out[LoadBalancerController.name] = lambda context: LoadBalancerController(context, config.load_balancer_range)
        if self.root_ca:
            out[RootCAController.name] = _root_ca(self.root_ca)
        if not self.config.allocate_node_cidrs:
            del out[NodeIPAMController.name]
        if self.config.enable_garbage_collector:
            out[GarbageCollector.name] = GarbageCollector  # last: it shares the informers of the others
        return out

    def check(self) -> None:
        """Raises AssertionError unless informers and queues agree with themselves."""
        self.informers.check()
        for controller in self.controllers:
            controller.queue.check()

    async def run(self) -> None:
        """Runs the controllers; with the knob leader-elect only while leading. Raises LeadershipLost."""
        if not self.config.leader_elect:
            await self._work()
            return
        elector = LeaderElector(
            self.client,
            self.world,
            *LEASE,
            self.identity,
            lease_duration=self.config.leader_elect_lease_duration,
            renew_deadline=self.config.leader_elect_renew_deadline,
            retry_period=self.config.leader_elect_retry_period,
        )
        await elector.run(self._work)

    async def _work(self) -> None:
        self.leading = True
        self.controllers = [
            make(self.context) for name, make in self.factories().items() if self.config.enabled(name)
        ]
        log.info("running %s", ", ".join(c.name for c in self.controllers))
        async with self.world.task_group() as group:
            group.start(self.informers.run(), name="informers")
            for component, recorder in self.context.recorders.items():
                group.start(recorder.run(), name=f"events of {component}")
            for controller in self.controllers:
                group.start(keep_running(self.world, log, controller.name, controller.run), name=controller.name)
