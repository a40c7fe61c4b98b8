"""Styles and scripts, under a folder whose name is the hash of all of them.

Modules import each other by relative addresses, so one name for the folder renews them together and no file has to be
rewritten. See docs/decisions/0045-assets-in-a-hashed-folder.md.
"""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.exceptions import NotFound

from rates_app.cache.answer import Answer
from rates_app.http.responses import send
from rates_app.web.rendering import views

if TYPE_CHECKING:
    from flask import Response

FOLDER = Path(__file__).parent / "static"
SERVED = frozenset({".css", ".js", ".svg", ".ico"})


def _load() -> dict[str, Answer]:
    assets = {}
    for path in sorted(path for path in FOLDER.rglob("*") if path.suffix in SERVED):
        media_type, _ = mimetypes.guess_type(path.name)
        charset = "" if path.suffix == ".ico" else "; charset=utf-8"
        assets[path.relative_to(FOLDER).as_posix()] = Answer.of(path.read_bytes(), f"{media_type}{charset}")
    return assets


#: Every asset, compressed once, when the process starts.
ASSETS = _load()
DIGEST = hashlib.sha256("".join(name + asset.tag for name, asset in ASSETS.items()).encode()).hexdigest()[:12]


@views.app_template_global()
def asset(name: str) -> str:
    """Return the address of an asset."""
    if name not in ASSETS:
        raise NotFound(f"There is no asset {name!r}.")
    return f"/static/{DIGEST}/{name}"


@views.get("/static/<digest>/<path:name>")
def static(digest: str, name: str) -> Response:
    """Return an asset, immutable under the current hash.

    During a rollout a page of one version may request assets from a pod of the other version. It gets that pod's
    asset, which must not be cached under the foreign hash.
    """
    if name not in ASSETS:
        raise NotFound("Asset not found. Reload the page.")
    response = send(ASSETS[name])
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if digest == DIGEST else "no-store"
    return response
