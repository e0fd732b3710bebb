"""Google's clients, one of each for a process and place.

Who one is, is Google's business: the application default credentials. BIGQUERY_EMULATOR_HOST (REST)
and BIGQUERY_STORAGE_EMULATOR_HOST (the Storage API) lead every client to an emulator instead.
"""

import os
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import google.auth
import grpc
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import (
    BigQueryWriteGrpcTransport,
)

from ingest.settings import Settings
from ingest.warehouse import CloudError

LABELS = {"application": "tapehouse"}
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_MESSAGE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Clients:
    """Clients for a project and a location, each made when it is needed.

    A query that would be billed for more than ``maximum_bytes`` is refused. ``emulator`` and
    ``storage`` are where an emulator listens, None where it is the service.
    """

    project: str | None
    location: str
    maximum_bytes: int
    emulator: str | None
    storage: str | None

    @cached_property
    def rest(self) -> bigquery.Client:
        """The client of jobs, tables and queries, with Google's own retries on 429 and 503.

        Raises
        ------
        CloudError
            If there are no credentials or no project.
        """
        return self.client_of(None)

    def client_of(self, dataset: str | None) -> bigquery.Client:
        """Return a client in whose queries a table without a dataset is one of the given."""
        credentials, project = self._credentials
        project = self.project or project
        queries = bigquery.QueryJobConfig(labels=LABELS, maximum_bytes_billed=self.maximum_bytes)
        if dataset:
            queries.default_dataset = f"{project}.{dataset}"
        return bigquery.Client(
            project=project,
            credentials=credentials,
            location=self.location,
            default_query_job_config=queries,
        )

    @cached_property
    def reader(self) -> BigQueryReadClient:
        """The client of the Storage Read API."""
        if self.emulator:
            return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=self._channel))
        return BigQueryReadClient(credentials=self._credentials[0])

    @cached_property
    def writer(self) -> BigQueryWriteClient:
        """The client of the Storage Write API."""
        if self.emulator:
            return BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=self._channel))
        return BigQueryWriteClient(credentials=self._credentials[0])

    @cached_property
    def _credentials(self) -> tuple[Any, str | None]:
        if self.emulator:
            return AnonymousCredentials(), "tapehouse"
        try:
            credentials, project = google.auth.default(scopes=_SCOPES)
        except DefaultCredentialsError as error:
            raise CloudError(
                "there are no Google credentials: run `gcloud auth application-default login`, or "
                "point GOOGLE_APPLICATION_CREDENTIALS at a service account's file "
                "(docs/guides/bigquery.md)"
            ) from error
        if not (self.project or project):
            raise CloudError("the credentials name no project: set TAPEHOUSE_BIGQUERY_PROJECT")
        return credentials, project

    @cached_property
    def _channel(self) -> grpc.Channel:
        if self.storage is None:
            raise CloudError(
                "BIGQUERY_EMULATOR_HOST is set: BIGQUERY_STORAGE_EMULATOR_HOST must say where the "
                "emulator's Storage API listens, such as 127.0.0.1:9060"
            )
        options = [
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ]
        return grpc.insecure_channel(self.storage, options=options)


def clients(settings: Settings) -> Clients:
    """Return the clients of this process for the project and the location of the settings."""
    addresses = ("BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST")
    return _clients(
        settings.bigquery_project,
        settings.bigquery_location,
        settings.bigquery_maximum_bytes,
        *map(os.environ.get, addresses),
    )


_clients = cache(Clients)
