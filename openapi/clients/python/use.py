"""What somebody does first with a generated client: list, create, read, and understand a refusal."""

import os

from ambient_client import AuthenticatedClient
from ambient_client.api.projects import create_project, list_projects
from ambient_client.api.sessions import create_session, get_session, update_session
from ambient_client.models import (
    ApiError,
    Project,
    ProjectCreate,
    ProjectList,
    ProjectStatus,
    Session,
    SessionCreate,
    SessionPatch,
)


def main() -> None:
    """Talks to the server that AMBIENT_URL and AMBIENT_TOKEN name."""
    client = AuthenticatedClient(os.environ["AMBIENT_URL"], token=os.environ["AMBIENT_TOKEN"])

    project = create_project.sync(client=client, body=ProjectCreate(name="python"))
    assert isinstance(project, Project) and project.status is ProjectStatus.ACTIVE, project

    projects = list_projects.sync(client=client, size=10)
    assert isinstance(projects, ProjectList) and project.id in [one.id for one in projects.items], projects

    body = SessionCreate(project_id="python", name="first", timeout=60)
    created = create_session.sync(client=client, body=body, idempotency_key="python-1")
    assert isinstance(created, Session), created

    session = get_session.sync(created.id, client=client)
    assert isinstance(session, Session) and session.name == "first", session
    assert session.phase is None, "never started"

    # Null removes, what is absent stays.
    changed = update_session.sync(created.id, client=client, body=SessionPatch(timeout=None))
    assert isinstance(changed, Session) and changed.timeout is None and changed.name == "first", changed

    refused = get_session.sync("2PzyKuGf4Pp1cYCmLvjkxyDiEBD", client=client)
    assert isinstance(refused, ApiError) and refused.code == "ambient-7", refused
    print("Python: projects listed, a session created, read and changed")


main()
