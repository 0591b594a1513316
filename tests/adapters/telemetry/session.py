"""What a LangSmith client would send, kept instead."""

import json
from typing import Any

import requests


class Kept(requests.Session):
    """A session that keeps what it is asked to send, and never sends it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.fails = False

    def request(self, method: Any, url: Any, *args: Any, data: Any = None, **options: Any) -> requests.Response:
        if self.fails:
            raise requests.ConnectionError("away")
        if data:
            self.sent.append((str(method), json.loads(data)))
        response = requests.Response()
        response.status_code = 200
        response._content = b"{}"
        return response

    def metadata(self, name: str, method: str = "PATCH") -> list[dict[str, Any]]:
        """Ours, of each message of that kind about the run of that name."""
        return [
            {key: value for key, value in run["extra"]["metadata"].items() if key.startswith("ccs.")}
            for sent, run in self.sent
            if sent == method and run["name"] == name
        ]
