"""Sign in at Prefect and MLflow, by the environment variables that their own clients read."""

from __future__ import annotations

import base64
import os

PREFECT_SIGN_IN = "PREFECT_API_AUTH_STRING"
MLFLOW_USER, MLFLOW_PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


def prefect_headers() -> dict[str, str]:
    """Make the headers that Prefect's API asks for; none where no sign-in is set."""
    login = os.environ.get(PREFECT_SIGN_IN)
    # The whole string at once: it need not have a user's and a password's part.
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}


def mlflow_login() -> tuple[str, str] | None:
    """Read user and password for MLflow; None where no sign-in is set."""
    user, password = os.environ.get(MLFLOW_USER), os.environ.get(MLFLOW_PASSWORD)
    return (user, password) if user and password else None
