"""Ask the addresses of a study whether they answer: the store, the cluster, MLflow's database."""

from pipelines.cluster.address import asked_cluster
from pipelines.files.store import Store, asked_store
from pipelines.study.config import StudyConfig
from pipelines.tracking.address import asked_database, default_tracking_uri, local_tracking_uri


class Addresses:
    """The questions to the addresses of a study. Making this object asks all of them at the same time.

    A command makes it before it imports its slow libraries, so that the answers come meanwhile.

    Raises:
        UserError: an address is malformed or of an unknown kind.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.store = asked_store(config.storage, config.name)
        # a dry run neither joins a cluster nor writes to MLflow
        self.cluster = asked_cluster("local" if config.dry_run else config.address)
        self.database = asked_database(
            local_tracking_uri() if config.dry_run else config.tracking_uri or default_tracking_uri()
        )

    def answers(self) -> tuple[Store, str | None]:
        """Wait for the answers. Return the opened store, and the address of the cluster to join; None: start Ray here.

        Raises:
            UserError: one of the addresses cannot be used, or does not answer within seconds.
        """
        found = self.store(), self.cluster()
        self.database()
        return found
