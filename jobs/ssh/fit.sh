#!/bin/bash
# A fit on machines that answer to ssh (cluster-configs/ssh.yaml); this one drives. From the checkout:
#   nohup bash jobs/ssh/fit.sh > fit.log &
# SIGUSR1 or SIGTERM stop it with its state on disk, exit code 75; run again it goes on, and a finished one says so.

VENV=${VENV:-} # where dgmm is installed, if it is not on the PATH already
DATA=${DATA:-/shared/$USER/rows.zarr}
COMPONENTS=${COMPONENTS:-16}
OPTIONS=${OPTIONS:-} # more of `dgmm fit`, such as "--n-init 10 --weights w.zarr"
CHECKPOINT=${CHECKPOINT:-$DATA.fit-$COMPONENTS}
CLUSTER=${CLUSTER:-cluster-configs/ssh.yaml}

source jobs/resumable.sh
# shellcheck disable=SC2086  # several options in one variable
resumable dgmm fit "$DATA" -k "$COMPONENTS" $OPTIONS --model "$CHECKPOINT.dgmm" --checkpoint "$CHECKPOINT" \
  --cluster "$CLUSTER"
