#!/bin/bash
# Spark runs it before an executor's pod is ended: SIGPWR makes the executor, process 1, hand its work over first.
set -euo pipefail
kill -s PWR 1
exec timeout 60 tail --pid=1 --follow /dev/null
