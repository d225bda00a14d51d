# shellcheck shell=bash
# Sourced by the scripts of these folders. `resumable COMMAND ...` runs dgmm so that the batch system's warning
# (SIGUSR1) reaches it. If dgmm then stops with its state on disk, which is exit code 75, the job runs again, at
# most MAX_RESTARTS times. A job that its user cancels (SIGTERM) stops in the same way and does not run again.

# shellcheck disable=SC1091  # the environment is the user's
[ -z "${VENV:-}" ] || source "$VENV/bin/activate"
# One BLAS thread: dgmm's parallelism is its workers.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
export DASK_TEMPORARY_DIRECTORY="${SCRATCH:-${TMPDIR:-/tmp}}"

MAX_RESTARTS=${MAX_RESTARTS:-20}
# What a job keeps beside its checkpoint is in the current folder where that is a URL.
BESIDE=${CHECKPOINT:-none}
if [[ $BESIDE == *://* ]]; then BESIDE=${BESIDE#*://} BESIDE=${BESIDE//\//-}; fi
driver='' warned=''
trap 'warned=yes; [ -z "$driver" ] || kill -USR1 "$driver"' USR1
trap '[ -z "$driver" ] || kill -TERM "$driver"' TERM INT

resumable() {
  local code timer=''
  "$@" &
  driver=$!
  if [ -n "${WARN_AFTER:-}" ]; then # where the batch system gives no warning
    { sleep "$WARN_AFTER" && kill -USR1 $$; } &
    timer=$!
  fi
  while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done # a signal ends wait
  wait "$driver"
  code=$?
  [ -z "$timer" ] || pkill -P "$timer" || true
  [ "$code" -ne 0 ] || rm -f "$BESIDE.restarts"
  echo "$(date '+%F %T'): dgmm ended with exit code $code"
  if [ "$code" -eq 75 ] && [ -n "$warned" ] && [ -n "${SLURM_JOB_ID:-}${BATCH_SYSTEM:-}" ]; then run_again; fi
  # Asked to by -Q 75, LSF would run a job again that its user has cancelled.
  if [ "$code" -eq 75 ] && [ "${BATCH_SYSTEM:-}" = lsf ]; then exit 143; fi
  exit "$code"
}

run_again() {
  local count="$BESIDE.restarts" restarts
  restarts="${SLURM_RESTART_COUNT:-$(cat "$count" 2>/dev/null || echo 0)}"
  if [ "$restarts" -ge "$MAX_RESTARTS" ]; then
    echo "restarted $restarts times, which is MAX_RESTARTS: submit the job again to go on"
    rm -f "$count"
    exit 1
  fi
  echo "restart $((restarts + 1)) of at most $MAX_RESTARTS"
  if [ -n "${SLURM_JOB_ID:-}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo $((restarts + 1)) >"$count"
    "resubmit_$BATCH_SYSTEM"
  fi
}

resubmit_pbs() { qsub "$SCRIPT"; } # qrerun is for operators
resubmit_lsf() { exit 75; }        # bsub -Q 75
resubmit_sge() { exit 99; }        # what Grid Engine takes for: run me again
