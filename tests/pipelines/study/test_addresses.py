"""A study asks all its addresses at the same time, before it reads its images."""

import re
import time

import pytest

from pipelines import asking
from pipelines.files import store
from pipelines.study.addresses import Addresses
from pipelines.study.config import StudyConfig
from pipelines.study.session import run_study
from uvb.errors import UserError


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No remote store answers."""
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(store, "from_uri", lambda *_: time.sleep(20))


@pytest.mark.usefixtures("silent")
def test_run_study_asks_the_store_before_it_reads_images() -> None:
    with pytest.raises(UserError, match="s3://bucket/nowhere does not answer within"):
        run_study(StudyConfig(storage="s3://bucket", dataset="nowhere"))


@pytest.mark.usefixtures("silent")
def test_addresses_begin_to_ask_when_they_are_made() -> None:
    addresses = Addresses(StudyConfig(storage="s3://bucket"))
    time.sleep(0.8)  # stands for the imports of the libraries
    with pytest.raises(UserError, match="s3://bucket/digits does not answer within") as caught:
        addresses.answers()
    said = re.findall(r"within ([\d.]+) s;", str(caught.value))
    assert float(said[0]) >= 1.3  # the 0.8 s count, and the study waits 0.5 s more


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "127.0.0.1:-1"}, "an address is HOST:PORT"),
        ({"storage": "nosuch://x"}, "cannot open nosuch://x"),
        ({"tracking_uri": "postgresql://"}, "psycopg"),
    ],
)
def test_addresses_refuse_what_is_malformed_at_once(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Addresses(StudyConfig(**options))


def test_addresses_of_a_dry_run_need_no_cluster_and_no_database() -> None:
    config = StudyConfig(dry_run=True, address="127.0.0.1:9", tracking_uri="postgresql://nowhere.invalid/db")
    opened, cluster = Addresses(config).answers()
    assert opened.local_path is not None
    assert cluster is None
