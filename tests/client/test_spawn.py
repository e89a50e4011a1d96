"""Where a client looks for its manager, and whom it believes."""

import json
import os

import pytest

from jupyter_sandbox import paths
from jupyter_sandbox.client import spawn


@pytest.fixture
def planted(environment):
    path = paths.data_dir() / "manager.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"socket": "/somewhere/manager.sock"}))
    return path


def test_a_manager_is_found_where_it_says_that_it_is(planted):
    assert str(spawn.find_socket()) == "/somewhere/manager.sock"


@pytest.mark.root
def test_what_another_user_wrote_about_a_manager_is_not_believed(planted):
    os.chown(planted, 65534, 65534)
    assert spawn.find_socket() == paths.manager_socket()
