"""Delay all responses of a release. slow.pth makes Python import this module at its start."""

import time

from flask import Flask, request

SECONDS = 0.8

answer = Flask.full_dispatch_request


def delay_responses(self, *arguments):  # type: ignore[no-untyped-def]
    if request.path == "/rates":
        time.sleep(SECONDS)
    return answer(self, *arguments)


Flask.full_dispatch_request = delay_responses  # type: ignore[method-assign]
