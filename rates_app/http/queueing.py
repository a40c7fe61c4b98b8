"""How long the present request has waited for a thread: what tells a busy service from one beyond its capacity."""

from __future__ import annotations

import threading


class _Waited(threading.local):
    seconds = 0.0


#: Set by the server's worker before a thread takes up a request.
waited = _Waited()
