"""Train and measure the models of `uvb` on Ray, log them to MLflow, and write files and a report."""

import logging
import os

# Set the options of Ray and MLflow before the first import of these packages, which reads some of them.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # otherwise a thread that outlives ray.shutdown() may start a new cluster
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # at Ray's default of 2 s, even a short epoch would take 2 s
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "300",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints boxes even at verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study's own files have every metric
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning on machines without GPUs
    "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():
    os.environ.setdefault(_name, _value)
# A proxy cannot reach this machine's own Ray and MLflow, so requests to them must bypass it.
_direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
if "127.0.0.1" not in _direct:
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [_direct, "localhost", "127.0.0.1"]))
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # matplotlib warns if it cannot write to the home folder
