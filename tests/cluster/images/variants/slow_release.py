"""Makes every answer of a release late but right; slow.pth has Python import it at its start."""

import time

from flask import Flask, request

SECONDS = 0.8

answer = Flask.full_dispatch_request


def answer_late(self, *arguments):  # type: ignore[no-untyped-def]
    if request.path == "/rates":
        time.sleep(SECONDS)
    return answer(self, *arguments)


Flask.full_dispatch_request = answer_late  # type: ignore[method-assign]
