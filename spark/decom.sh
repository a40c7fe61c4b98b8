#!/bin/bash
# Spark runs this before an executor's pod is deleted: SIGPWR makes the executor (process 1) migrate its data first.
set -euo pipefail
kill -s PWR 1
exec timeout 60 tail --pid=1 --follow /dev/null
