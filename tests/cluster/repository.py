"""A Git server and a list of pull requests, as a substitute for GitHub."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from tests.charts.rendering import charts, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
NAME = "freight-rates"
BRANCH = "main"
PERSON = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "tests"), ("EMAIL", "tests@example.com"))
}


class GitRepository:
    """A clone of this repository that tests commit to, served over HTTPS. Pull requests are served over HTTP.

    Args:
        folder: The folder of the clone.
        host: The address by which pods reach this machine.
    """

    def __init__(self, folder: Path, host: str) -> None:
        bare, self.tree = folder / f"{NAME}.git", folder / "tree"
        _run("git", "clone", "--quiet", "--bare", "--single-branch", str(ROOT), str(bare))
        _run("git", "clone", "--quiet", str(bare), str(self.tree))
        self.git("checkout", "--quiet", "-B", BRANCH)
        self.pull_requests: list[dict[str, Any]] = []
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        _run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"),
            *("-addext", f"subjectAltName=IP:{host}", "-keyout", str(key), "-out", str(certificate)),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._git_server = _serve(_git_handler(folder))
        self._git_server.socket = context.wrap_socket(self._git_server.socket, server_side=True)
        self._api_server = _serve(_api_handler(lambda: self.pull_requests))
        for server in (self._git_server, self._api_server):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"https://{host}:{self._git_server.server_port}/{NAME}.git"
        self.api = f"http://{host}:{self._api_server.server_port}"

    @property
    def credential(self) -> dict[str, Any]:
        """Argo CD's Secret for this repository, whose server has a self-signed certificate."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "forge", "labels": {"argocd.argoproj.io/secret-type": "repository"}},
            "stringData": {"type": "git", "url": self.url, "insecure": "true"},
        }

    def add_operator(self, stack: str, values: Mapping[str, Any]) -> None:
        """Add the spark-operator's chart to the tree, which otherwise needs a public registry.

        Args:
            stack: Stack whose values get those of the operator.
            values: Values of the operator's chart.
        """
        for chart in (charts() / "helm/spark-ingest/charts").iterdir():
            target = self.tree / "helm/spark-ingest/charts" / chart.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(chart.read_bytes())
        path = self.tree / f"helm/gitops/stacks/{stack}/spark-ingest.yaml"
        given = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(merge(given, {"spark-operator": dict(values)})))

    def close(self) -> None:
        for server in (self._git_server, self._api_server):
            server.shutdown()
            server.server_close()

    def git(self, *arguments: str) -> str:
        """Run git in the working tree."""
        return self.run("git", *arguments)

    def run(self, *command: str) -> str:
        """Run a program in the working tree, with the committer's identity."""
        return _run(*command, cwd=self.tree)

    def commit(self, message: str) -> str:
        """Commit all changes, including ignored files, to the current branch, and push it."""
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--message", message)
        return self.push()

    def push(self) -> str:
        """Push the current branch and return its newest commit."""
        self.git("push", "--quiet", "--force", "origin", "HEAD")
        return self.git("rev-parse", "HEAD").strip()

    def open_pull_request(self, number: int) -> str:
        """Push a new branch, open a pull request, approve its commit with a label, and return the commit."""
        branch = f"change-{number}"
        self.git("checkout", "--quiet", "-B", branch)
        (self.tree / "docs" / f"{branch}.md").write_text("A change.\n")
        commit = self.commit("Propose a change")
        self.git("checkout", "--quiet", BRANCH)
        self.pull_requests.append(
            {
                "number": number,
                "title": "A change",
                "state": "open",
                "user": {"login": "somebody"},
                "labels": [{"name": f"preview-{commit}"}],
                "head": {"ref": branch, "sha": commit},
                "base": {"ref": BRANCH},
            }
        )
        return commit


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, **PERSON}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _serve(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    return ThreadingHTTPServer(("0.0.0.0", 0), handler)


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Suppress the request log."""


def _git_handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    class GitHandler(_Quiet):
        """Passes requests to git's CGI program."""

        def do_GET(self) -> None:
            path = urlsplit(self.path)
            done = subprocess.run(
                ["git", "http-backend"],
                input=self.rfile.read(int(self.headers.get("Content-Length", 0))),
                capture_output=True,
                check=True,
                env={
                    **os.environ,
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "PATH_INFO": path.path,
                    "QUERY_STRING": path.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "REMOTE_ADDR": self.client_address[0],
                },
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - named by the base class

    return GitHandler


def _api_handler(pull_requests: Callable[[], list[dict[str, Any]]]) -> type[BaseHTTPRequestHandler]:
    class PullRequestsHandler(_Quiet):
        """Lists open pull requests as GitHub does: https://docs.github.com/rest/pulls/pulls#list-pull-requests."""

        def do_GET(self) -> None:
            known = urlsplit(self.path).path == f"/api/v3/repos/{NAME}/{NAME}/pulls"
            body = json.dumps(pull_requests() if known else {"message": "Not Found"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return PullRequestsHandler
