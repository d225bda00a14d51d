#!/bin/bash
# A fit whose workers are MPI ranks, in an allocation of any batch system or on one machine. From the checkout:
#   RANKS=18 bash jobs/mpi/fit.sh
# SIGUSR1 or SIGTERM stop it with its state on disk, exit code 75; run again it goes on, and a finished one says so.

VENV=${VENV:-} # where dgmm is installed, if it is not on the PATH already
DATA=${DATA:-/scratch/$USER/rows.zarr}
COMPONENTS=${COMPONENTS:-16}
OPTIONS=${OPTIONS:-} # more of `dgmm fit`, such as "--n-init 10 --weights w.zarr"
CHECKPOINT=${CHECKPOINT:-$DATA.fit-$COMPONENTS}
CLUSTER=${CLUSTER:-cluster-configs/mpi.yaml}
RANKS=${RANKS:-${SLURM_NTASKS:-4}} # one schedules, one drives, the others work
MPIEXEC=${MPIEXEC:-mpiexec}
MAX_RESTARTS=${MAX_RESTARTS:-20}

source jobs/resumable.sh
source jobs/tls.sh
# shellcheck disable=SC2086  # several options in one variable
resumable $MPIEXEC -n "$RANKS" dgmm fit "$DATA" -k "$COMPONENTS" $OPTIONS --model "$CHECKPOINT.dgmm" \
  --checkpoint "$CHECKPOINT" --cluster "$CLUSTER" \
  --set tls.ca="$TLS/cert.pem" --set tls.cert="$TLS/cert.pem" --set tls.key="$TLS/key.pem"
